"""Preemption: whom it costs, what budgets say, what is promised, what happens beside the loop."""

from __future__ import annotations

import random
from typing import Any

import trio

from k8slite.api.kinds import NODES, POD_DISRUPTION_BUDGETS, PODS
from k8slite.api.meta import Obj, deleting, get_condition
from k8slite.api.status import service_unavailable
from k8slite.scheduler.config import default_profile
from k8slite.scheduler.decide import decide
from k8slite.scheduler.framework import Handle
from k8slite.scheduler.pod_info import pod_info
from k8slite.scheduler.preempt import Candidate, candidates, cheapest, not_eligible
from k8slite.scheduler.snapshot import Snapshot
from tests.scheduler.objects import node, pod
from tests.scheduler.test_scheduler import open_world, where

BUDGETED = {"app": "guarded"}


def budget(allowed: int, disrupted: dict[str, str] | None = None) -> Obj:
    return {
        "metadata": {"name": "b", "namespace": "n"},
        "spec": {"selector": {"matchLabels": BUDGETED}},
        "status": {"disruptionsAllowed": allowed, "disruptedPods": disrupted or {}},
    }


def started(obj: Obj, at: str) -> Obj:
    return {**obj, "status": {"startTime": at}}


def best_for(new: Obj, nodes: list[Obj], pods: list[Obj], *budgets: Obj) -> Candidate | None:
    snapshot = Snapshot()
    for one in nodes:
        snapshot.put_node(one)
    for one in pods:
        snapshot.put_pod(pod_info(one))
    snapshot.budgets = {str(i): one for i, one in enumerate(budgets)}
    info, profile = pod_info(new), default_profile(Handle(snapshot))
    failure = decide(info, snapshot, 0, random.Random(0), profile)
    assert not failure.node
    found = candidates(info, snapshot, failure.resolvable, profile, random.Random(0))
    return cheapest(found)


def victims(candidate: Candidate | None) -> tuple[str, list[str]]:
    assert candidate is not None
    return candidate.node, [victim.key.removeprefix("n/") for victim in candidate.victims]


def test_a_budget_is_broken_only_if_nothing_else_helps() -> None:
    nodes = [node("a", "2"), node("b", "2")]
    pods = [
        pod("guarded", "2", on="a", labels=BUDGETED, priority=1),
        pod("plain", "2", on="b", priority=5),
    ]
    high = pod("p", "2", priority=10)
    assert victims(best_for(high, nodes, pods)) == ("a", ["guarded"])
    assert victims(best_for(high, nodes, pods, budget(0))) == ("b", ["plain"])
    assert victims(best_for(high, nodes, pods, budget(1))) == ("a", ["guarded"])
    alone = best_for(high, nodes[:1], pods[:1], budget(0))
    assert victims(alone) == ("a", ["guarded"])
    assert alone is not None
    assert alone.violations == 1


def test_guarded_pods_come_back_first() -> None:
    pods = [
        pod("guarded", "1", on="a", labels=BUDGETED, priority=1),
        pod("plain", "1", on="a", priority=5),
    ]
    high = pod("p", "1", priority=10)
    assert victims(best_for(high, [node("a", "2")], pods)) == ("a", ["guarded"])
    assert victims(best_for(high, [node("a", "2")], pods, budget(0))) == ("a", ["plain"])


def test_of_equals_the_youngest_go() -> None:
    nodes = [node("a", "2"), node("b", "2")]
    pods = [
        started(pod("old", "2", on="a", priority=1), "2023-01-01T00:00:00Z"),
        started(pod("young", "2", on="b", priority=1), "2023-01-02T00:00:00Z"),
    ]
    assert victims(best_for(pod("p", "2", priority=10), nodes, pods)) == ("b", ["young"])
    both = [{**p, "spec": {**p["spec"], "nodeName": "a"}} for p in pods]
    new = pod("p", "2", priority=10)
    assert victims(best_for(new, [node("a", "4")], both)) == ("a", ["young"])


def test_who_is_promised_room_is_not_robbed_of_it() -> None:
    snapshot = Snapshot()
    snapshot.put_node(node("a", "2"))
    profile = default_profile(Handle(snapshot))
    hoping = pod_info(pod("hoping", "2", priority=10))
    snapshot.nominate(hoping, "a")
    rng = random.Random(0)
    assert not decide(pod_info(pod("q", "1", priority=5)), snapshot, 0, rng, profile).node
    assert decide(pod_info(pod("q", "1", priority=50)), snapshot, 0, rng, profile).node == "a"
    assert decide(hoping, snapshot, 0, rng, profile).node == "a"
    snapshot.withdraw(hoping)
    assert decide(pod_info(pod("q", "1", priority=5)), snapshot, 0, rng, profile).node == "a"
    assert not snapshot.has_promises


def test_room_that_was_made_is_looked_at_first() -> None:
    snapshot = Snapshot()
    for own in "abc":
        snapshot.put_node(node(own))
    info = pod_info(pod("p", "1"))
    snapshot.nominate(info, "c")
    decision = decide(info, snapshot, 0, random.Random(0), default_profile(Handle(snapshot)))
    assert (decision.node, decision.looked_at) == ("c", 1)


def test_who_may_not_preempt() -> None:
    snapshot = Snapshot()
    snapshot.put_node(node("a", "2"))
    dying = pod("dying", "2", on="a", priority=1)
    dying["metadata"]["deletionTimestamp"] = "2023-01-01T00:00:00Z"
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
    dying["status"] = {"conditions": [condition]}
    snapshot.put_pod(pod_info(dying))
    polite = pod_info(pod("p", "2", priority=10, preemptionPolicy="Never"))
    assert not_eligible(polite, snapshot, ["a"]) == "not eligible due to preemptionPolicy=Never."
    waiting = pod_info(pod("q", "2", priority=10))
    assert not not_eligible(waiting, snapshot, ["a"])
    snapshot.nominate(waiting, "a")
    assert "terminating pod on the nominated node" in not_eligible(waiting, snapshot, ["a"])
    assert not not_eligible(waiting, snapshot, []), "that node is hopeless: look for another"


# --- the whole scheduler -------------------------------------------------------------------------


async def crowded(api: Any) -> None:
    api.add(NODES, node("a", "2"))
    for i in range(2):
        api.add(PODS, pod(f"low{i}", "1", priority=1))
    await trio.sleep(1)


async def test_victims_are_told_why(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as api:
        await crowded(api)
        api.add(PODS, pod("high", "2", priority=100))
        await trio.sleep(1)
        for victim in api.all(PODS):
            if deleting(victim):
                condition = get_condition(victim, "DisruptionTarget")
                assert condition is not None
                assert condition["reason"] == "PreemptionByScheduler"
                assert condition["message"].startswith("default-scheduler: preempting")
        assert [k for k, p in api.objects[PODS].items() if deleting(p)] == ["n/low0", "n/low1"]


async def test_a_pod_that_preempts_waits_until_its_victims_were_deleted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The deletion fails at first: then it is tried again, and nobody else dies."""
    async with open_world() as api:
        await crowded(api)
        failures = 3

        def fault(verb: str, kind: Any, key: str) -> BaseException | None:
            nonlocal failures
            if verb == "delete" and failures:
                failures -= 1
                return service_unavailable("not now")
            return None

        api.fault = fault
        api.add(PODS, pod("high", "1", priority=100))
        await trio.sleep(30)
        stopping = [k for k, p in api.objects[PODS].items() if deleting(p)]
        assert len(stopping) == 1
        api.remove(PODS, stopping[0])
        await trio.sleep(1)
        assert where(api)["n/high"] == "a"


async def test_a_more_important_pod_takes_over_what_was_promised(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_world() as api:
        await crowded(api)
        api.add(PODS, pod("high", "2", priority=100))
        await trio.sleep(1)
        assert api.read(PODS, "n/high")["status"]["nominatedNodeName"] == "a"
        api.add(PODS, pod("higher", "2", priority=1000))
        await trio.sleep(5)
        for own in ("n/low0", "n/low1"):
            api.remove(PODS, own)
        await trio.sleep(20)
        assert where(api) == {"n/high": "", "n/higher": "a"}


async def test_budgets_of_the_cluster_count(autojump_clock: trio.testing.MockClock) -> None:
    async with open_world() as api:
        api.add(POD_DISRUPTION_BUDGETS, budget(0))
        for own in ("a", "b"):
            api.add(NODES, node(own, "1"))
        api.add(PODS, pod("guarded", "1", labels=BUDGETED, priority=1))
        api.add(PODS, pod("plain", "1", priority=50))
        await trio.sleep(1)
        api.add(PODS, pod("high", "1", priority=100))
        await trio.sleep(2)
        assert [k for k, p in api.objects[PODS].items() if deleting(p)] == ["n/plain"]
