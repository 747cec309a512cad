"""Informers end up with what the apiserver has, whatever happens to their watches."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj, name, resource_version
from k8slite.client.cache import ObjectCache
from k8slite.client.informer import open_informer, open_informers
from tests.client.fake_api import FakeApi, unavailable
from tests.client.world import MemoryHost


def pod(pod_name: str, node: str = "") -> Obj:
    return {"metadata": {"name": pod_name, "namespace": "n"}, "spec": {"nodeName": node}}


def by_node(obj: Obj) -> list[str]:
    return [obj["spec"].get("nodeName", "")]


def move(node: str, obj: Obj) -> None:
    obj["spec"]["nodeName"] = node


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_handlers_hear_of_every_change_and_late_ones_of_what_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    api, heard, late = FakeApi(), [], []
    api.add(PODS, pod("a"))
    async with open_informer(api, PODS, MemoryHost()) as informer:
        informer.add_handler(lambda old, new: heard.append((old and name(old), new and name(new))))
        await informer.wait_synced()
        api.add(PODS, pod("b"))
        api.change(PODS, "n/a", lambda o: o["spec"].update(nodeName="x"))
        await settle()
        api.remove(PODS, "n/b")
        await settle()
        informer.add_handler(lambda old, new: late.append((old, new and name(new))))
    assert heard == [(None, "a"), (None, "b"), ("a", "a"), ("b", None)]
    assert late == [(None, "a")]


async def test_indexes_follow_changes(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    api.add(PODS, pod("a", "x"))
    async with open_informer(api, PODS, MemoryHost(), indexes={"node": by_node}) as informer:
        await informer.wait_synced()
        api.add(PODS, pod("b", "x"))
        api.change(PODS, "n/a", lambda o: o["spec"].update(nodeName="y"))
        await settle()
        assert [name(o) for o in informer.by_index("node", "x")] == ["b"]
        assert [name(o) for o in informer.by_index("node", "y")] == ["a"]
        assert informer.by_index("node", "z") == []


@pytest.mark.parametrize("seed", range(10))
async def test_it_converges_over_broken_watches_and_dead_servers(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    api, host = FakeApi(), MemoryHost(seed)
    handled: dict[str, str] = {}

    def handler(old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            del handled[name(old)]
        else:
            handled[name(new)] = resource_version(new)

    async with open_informer(api, PODS, host, indexes={"node": by_node}) as informer:
        informer.add_handler(handler)
        for _ in range(60):
            target = rng.choice("abcdef")
            if f"n/{target}" not in api.objects.get(PODS, {}):
                api.add(PODS, pod(target, rng.choice("xyz")))
            elif rng.random() < 0.3:
                api.remove(PODS, f"n/{target}")
            else:
                api.change(PODS, f"n/{target}", partial(move, rng.choice("xyz")))
            fault = rng.random()
            if fault < 0.15:
                api.break_watches(compact=fault < 0.08)
            elif fault < 0.2:
                api.fault = unavailable
                api.break_watches()
            elif fault < 0.5:
                api.fault = None
            await trio.sleep(rng.random())
        api.fault = None
        await trio.sleep(60)
        await settle()
        truth = {name(o): resource_version(o) for o in api.all(PODS)}
        assert {name(o): resource_version(o) for o in informer.list()} == truth
        assert handled == truth
        assert informer.version == str(api.version)


async def test_shared_informers_watch_a_kind_once(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    watches = []

    def count(verb: str, kind: object, key: str) -> None:
        if verb == "watch":
            watches.append(kind)

    api.fault = count
    async with open_informers(api, MemoryHost()) as informers:
        first = informers.of(PODS, {"node": by_node})
        assert informers.of(PODS, {"node": by_node}) is first
        await informers.wait_synced()
        await settle()
    assert watches == [PODS]


def test_a_replayed_event_tells_nothing() -> None:
    cache = ObjectCache()
    obj = {"metadata": {"name": "a", "resourceVersion": "1"}}
    assert cache.apply("ADDED", obj) == (None, obj)
    assert cache.apply("MODIFIED", dict(obj)) is None
    assert cache.apply("DELETED", obj) == (obj, None)
    assert cache.apply("DELETED", obj) is None
