"""A component's life: pauses, chaos, when it is given up, and what may be missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from k8slite.cluster.kept import Kept, how_ended, next_pause, too_few
from k8slite.cluster.logs import end_of, last_error
from k8slite.cluster.spec import ClusterSpec, components


@pytest.mark.parametrize(
    ("pause", "lived", "expected"),
    [
        (0, 0.1, 0.5),
        (0.5, 0.1, 1),
        (1, 5, 2),
        (16, 29.9, 30),
        (30, 1, 30),
        (30, 30, 0),
        (0, 3600, 0),
    ],
)
def test_pauses_grow_while_it_dies_young(pause: float, lived: float, expected: float) -> None:
    assert next_pause(pause, lived) == expected


@pytest.mark.parametrize(
    ("code", "words"),
    [(None, "has not ended"), (0, "ended with code 0"), (3, "ended with code 3"),
     (-9, "was killed by SIGKILL"), (-15, "was killed by SIGTERM"), (-99, "killed by signal 99")],
)  # fmt: skip
def test_an_exit_code_in_words(code: int | None, words: str) -> None:
    assert words in how_ended(code)


def all_kept(control_planes: int, nodes: int) -> dict[str, Kept]:
    return {
        c.name: Kept(c) for c in components(ClusterSpec(control_planes=control_planes, nodes=nodes))
    }


@pytest.mark.parametrize(
    ("control_planes", "given_up", "missing"),
    [
        (3, [], None),
        (3, ["raftkv-2"], None),
        (3, ["raftkv-2", "apiserver-1", "scheduler-3"], None),
        (3, ["raftkv-2", "raftkv-3"], "raftkv-2"),
        (2, ["raftkv-2"], "raftkv-2"),
        (1, ["raftkv-1"], "raftkv-1"),
        (5, ["raftkv-1", "raftkv-5"], None),
        (3, ["apiserver-1", "apiserver-2", "apiserver-3"], "apiserver-1"),
        (3, ["kubelet-1"], "kubelet-1"),
        (3, ["proxy-2"], "proxy-2"),
    ],
)
def test_a_start_bears_what_the_others_of_its_kind_can_bear(
    control_planes: int, given_up: list[str], missing: str | None
) -> None:
    kept = all_kept(control_planes, 2)
    for name in given_up:
        kept[name].give_up()
    found = too_few(list(kept.values()))
    assert (found.name if found else None) == missing
    for name in given_up:
        kept[name].is_ready()
    assert too_few(list(kept.values())) is None


async def waited(kept: Kept) -> float:
    began = trio.current_time()
    await kept.wait_start()
    return trio.current_time() - began


async def test_a_dead_one_waits_its_pause(autojump_clock: MockClock) -> None:
    kept = all_kept(1, 0)["raftkv-1"]
    assert kept.state == "waiting"
    assert await waited(kept) == 0
    kept.ended(3, "disk full")
    assert (kept.state, kept.restarts, kept.last_words) == ("crashed", 1, "disk full")
    assert await waited(kept) == 0.5


async def test_chaos_that_comes_during_a_pause_counts(autojump_clock: MockClock) -> None:
    kept = all_kept(1, 0)["raftkv-1"]
    kept.ended(3, "")
    async with trio.open_nursery() as nursery:

        async def kill() -> None:
            await trio.sleep(0.1)
            kept.set_dead_until(trio.current_time() + 20)
            assert kept.state == "killed"
            assert kept.starts_in(trio.current_time()) == 20

        nursery.start_soon(kill)
        assert await waited(kept) == pytest.approx(20.1)


async def test_what_is_dead_for_ever_can_be_resumed(autojump_clock: MockClock) -> None:
    kept = all_kept(1, 0)["raftkv-1"]
    kept.set_dead_until(float("inf"))
    async with trio.open_nursery() as nursery:

        async def resume() -> None:
            await trio.sleep(1000)
            kept.set_dead_until(None)

        nursery.start_soon(resume)
        assert await waited(kept) == 1000


def record(level: str, message: str, **more: str) -> str:
    return json.dumps({"level": level, "message": message, **more}) + "\n"


def test_last_words_are_of_the_last_life(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert (end_of(path), last_error(path)) == (0, "")
    path.write_text(record("error", "long ago") + record("info", "well"))
    since = end_of(path)
    assert last_error(path, since) == ""
    with path.open("a") as file:
        file.write(record("critical", "failed", error="Traceback\nKeyError: 'x'"))
        file.write("not JSON\n[]\n1\n" + '{"level"')
    assert last_error(path, since) == "failed: KeyError: 'x'"
    path.write_text(record("error", "after it was begun anew"))
    assert last_error(path, since) == "after it was begun anew"
