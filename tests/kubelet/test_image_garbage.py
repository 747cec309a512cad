"""Which images go when their disk fills up, and which stay."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from k8slite.kubelet.images.garbage import Candidate, Plan, Policy, make_plan
from k8slite.kubelet.images.puller import Puller
from k8slite.kubelet.images.store import ABANDONED_SECONDS, ImageStore
from k8slite.kubelet.images.uses import Uses
from k8slite.kubelet.runtime.images import Images
from k8slite.kubelet.runtime.interface import ImageMissing
from tests.kubelet.archives import docker_archive, member, tar

GIB = 1024**3
EVERYTHING = Policy(high_percent=0, low_percent=0, min_age_seconds=float("-inf"))


def plan(available: int, *candidates: Candidate, **last_used: float) -> Plan:
    return make_plan(
        Policy(),
        capacity_bytes=100 * GIB,
        available_bytes=available * GIB,
        candidates=candidates,
        last_used=last_used,
        now=1000.0,
    )


def test_nothing_goes_below_the_threshold() -> None:
    assert plan(16, Candidate("a", GIB, 0.0)) == Plan(84)
    assert make_plan(
        Policy(), capacity_bytes=0, available_bytes=0, candidates=(), last_used={}, now=0.0
    ) == Plan(0)


def test_the_longest_unused_go_first_until_it_is_enough() -> None:
    images = [Candidate(name, 3 * GIB, at) for name, at in (("a", 1.0), ("b", 0.0), ("c", 2.0))]
    assert plan(15, *images, a=500.0, b=900.0) == Plan(85, 5 * GIB, ("c", "a"))


def test_young_and_pinned_ones_stay() -> None:
    images = [
        Candidate("young", 9 * GIB, 900.0),
        Candidate("loaded", 9 * GIB, 0.0, pinned=True),
        Candidate("old", 2 * GIB, 0.0),
    ]
    assert plan(10, *images) == Plan(90, 10 * GIB, ("old",), 8 * GIB)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Images]]:
    """Two nodes over one store."""
    store = ImageStore(tmp_path / "store")
    for name in ("a", "b"):
        archive = docker_archive(tmp_path / f"{name}.tar", [tar(member(name, b"x"))], f"{name}:1")
        store.load(archive, pulled=f"sha256:{name * 64}")
    async with contextlib.AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        puller = Puller(store, nursery)
        yield [Images(store, puller, Uses(store.directory / "used", name)) for name in ("1", "2")]


def names(images: Images) -> list[str]:
    return [name for image in images.store.images() for name in image.names]


async def test_what_any_node_uses_stays(nodes: list[Images]) -> None:
    one, two = nodes
    image = one.use("a:1", 5.0)
    [gone] = two.collect(EVERYTHING, [], 6.0).remove
    assert gone != image.id
    assert names(two) == ["docker.io/library/a:1"]
    assert two.uses.last_used() == {image.id: 5.0}
    with pytest.raises(ImageMissing):
        two.use("b:1", 7.0)
    one.note([image.reference_of("a:1")], 8.0)
    assert two.uses.in_use() == {image.id}
    one.note([], 9.0)
    assert one.collect(EVERYTHING, [], 10.0).remove == (image.id,)
    assert names(one) == []


async def test_loaded_images_stay(nodes: list[Images], tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "c.tar", [tar(member("c"))], "c:1")
    nodes[0].store.load(archive)
    nodes[0].collect(EVERYTHING, [], 1.0)
    assert names(nodes[0]) == ["docker.io/library/c:1"]


async def test_what_was_left_half_made_is_swept(nodes: list[Images]) -> None:
    left = nodes[0].store.temporary / "pull-x"
    left.mkdir()
    made = left.stat().st_mtime
    nodes[0].collect(Policy(), [], made + 1)
    assert left.exists()
    nodes[0].collect(Policy(), [], made + ABANDONED_SECONDS + 1)
    assert not left.exists()
