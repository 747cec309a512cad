"""The whole scheduler against the fake apiserver: bindings, refusals, preemption, faults."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from k8slite.api.kinds import EVENTS, NODES, PODS
from k8slite.api.meta import Obj, deleting, get_condition
from k8slite.client.client import ClientConfig
from k8slite.scheduler.pod_info import pod_requests
from k8slite.scheduler.scheduler import SchedulerConfig, run_scheduling
from raftkv.host import Address
from tests.client.fake_api import FakeApi, Flaky
from tests.client.world import MemoryHost
from tests.scheduler.objects import node, pod


@asynccontextmanager
async def open_world(seed: int = 0) -> AsyncIterator[FakeApi]:
    api = FakeApi()
    config = SchedulerConfig(client=ClientConfig(endpoints=(Address("x", 1),)), identity="s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_scheduling, api, config, MemoryHost(seed))
        yield api
        nursery.cancel_scope.cancel()


def where(api: FakeApi) -> dict[str, str]:
    return {k: p["spec"].get("nodeName", "") for k, p in api.objects.get(PODS, {}).items()}


async def test_pods_are_bound_and_told_so(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as api:
        api.add(NODES, node("a"))
        api.add(PODS, pod("p", "1"))
        await trio.sleep(1)
        assert where(api) == {"n/p": "a"}
        [event] = api.all(EVENTS)
        assert (event["type"], event["reason"]) == ("Normal", "Scheduled")
        assert event["message"] == "Successfully assigned n/p to a"
        assert event["source"] == {"component": "default-scheduler"}


async def test_a_pod_without_a_place_says_why_and_gets_the_first_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        api.add(NODES, node("a", "1"))
        api.add(PODS, pod("p", "2"))
        await trio.sleep(1)
        condition = get_condition(api.read(PODS, "n/p"), "PodScheduled")
        assert condition is not None
        told = "0/1 nodes are available: 1 Insufficient cpu."
        assert condition["status"] == "False"
        assert condition["reason"] == "Unschedulable"
        assert condition["message"].startswith(told)
        [event] = api.all(EVENTS)
        assert (event["type"], event["reason"]) == ("Warning", "FailedScheduling")
        await trio.sleep(100)
        assert len([e for e in api.log if e[0] == "patch/status"]) == 1, "it does not spin"
        api.add(NODES, node("b", "4"))
        await trio.sleep(1)
        assert where(api) == {"n/p": "b"}


async def test_room_made_by_a_pod_that_goes_is_used(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        api.add(NODES, node("a", "2"))
        api.add(PODS, pod("big", "2"))
        await trio.sleep(1)
        api.add(PODS, pod("p", "1"))
        await trio.sleep(30)
        assert where(api)["n/p"] == ""
        api.set_status(PODS, "n/big", phase="Succeeded")
        await trio.sleep(1)
        assert where(api)["n/p"] == "a"


async def test_other_schedulers_gated_and_dying_pods_are_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        api.add(NODES, node("a"))
        api.add(PODS, pod("other", schedulerName="mine"))
        api.add(PODS, pod("gated", schedulingGates=[{"name": "wait"}]))
        dying = pod("dying")
        dying["metadata"]["deletionTimestamp"] = "2023-01-01T00:00:00Z"
        api.add(PODS, dying)
        await trio.sleep(5)
        assert [*where(api).values()] == ["", "", ""]
        api.change(PODS, "n/gated", lambda o: o["spec"].update(schedulingGates=[]))
        await trio.sleep(1)
        assert where(api)["n/gated"] == "a"


async def test_the_important_push_out_the_unimportant(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        api.add(NODES, node("a", "2"))
        for i in range(2):
            api.add(PODS, pod(f"low{i}", "1", priority=1))
        await trio.sleep(1)
        api.add(PODS, pod("high", "1", priority=100))
        await trio.sleep(5)
        stopping = [p for p in api.all(PODS) if deleting(p)]
        assert len(stopping) == 1
        assert api.read(PODS, "n/high")["status"]["nominatedNodeName"] == "a"
        await trio.sleep(30)
        assert len([p for p in api.all(PODS) if deleting(p)]) == 1, "one victim is enough"
        [victim] = stopping
        api.remove(PODS, "n/" + victim["metadata"]["name"])
        await trio.sleep(15)
        assert where(api)["n/high"] == "a"


def overbooked(api: FakeApi) -> list[str]:
    bad = []
    for one in api.all(NODES):
        pods = [p for p in api.all(PODS) if p["spec"].get("nodeName") == one["metadata"]["name"]]
        taken = sum(pod_requests(p["spec"]).get("cpu", 0) for p in pods)
        if taken > 1000 * int(one["status"]["allocatable"]["cpu"]):
            bad.append(one["metadata"]["name"])
    return bad


@pytest.mark.parametrize("seed", range(6))
async def test_faults_and_lost_watches_cost_time_and_never_overbook(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    async with open_world(seed) as api:
        flaky = Flaky(rng.randrange(3, 7))
        api.fault, api.lose_answers = flaky.before, flaky.after
        for own in "abc":
            api.add(NODES, node(own, "4"))
        for i in range(30):
            api.add(PODS, pod(f"p{i}", rng.choice(["500m", "1", "2"])))
            if rng.random() < 0.3:
                api.break_watches(compact=rng.random() < 0.5)
            if rng.random() < 0.3:
                gone = rng.choice([*api.objects[PODS]])
                api.remove(PODS, gone)
            await trio.sleep(rng.random())
            assert overbooked(api) == []
        await trio.sleep(400)
        assert overbooked(api) == []
        waiting = [p for p in api.all(PODS) if not p["spec"].get("nodeName")]
        for one in waiting:
            assert not any(_has_room(api, one, n) for n in api.all(NODES)), where(api)


def _has_room(api: FakeApi, new: Obj, on: Obj) -> bool:
    here = [p for p in api.all(PODS) if p["spec"].get("nodeName") == on["metadata"]["name"]]
    taken = sum(pod_requests(p["spec"]).get("cpu", 0) for p in here)
    wanted = pod_requests(new["spec"]).get("cpu", 0)
    return taken + wanted <= 1000 * int(on["status"]["allocatable"]["cpu"])
