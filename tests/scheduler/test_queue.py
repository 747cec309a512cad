"""The queue: order, back-off, gates, and who wakes up for what."""

from __future__ import annotations

from typing import Any

from k8slite.api.meta import Obj
from k8slite.scheduler.config import default_profile
from k8slite.scheduler.events import ASSIGNED_POD, Action, Change, node_change
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.queue import CHANGES_MAX, UNSCHEDULABLE_SECONDS_MAX, SchedulingQueue
from tests.scheduler.objects import node, pod


def new_queue() -> SchedulingQueue:
    return SchedulingQueue({"default-scheduler": default_profile()})


def info(name: str, priority: int = 0, **more: Any) -> PodInfo:
    return pod_info(pod(name, priority=priority, **more))


def drain(queue: SchedulingQueue, now: float) -> list[str]:
    names = []
    while (popped := queue.pop(now)) is not None:
        names.append(popped.key)
    return names


def refused(name: str = "a", by: str = "NodeResourcesFit", **more: Any) -> SchedulingQueue:
    """A queue with one pod that was tried at 0 and found no node."""
    queue = new_queue()
    queue.add(info(name, **more), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.set_unschedulable(popped.uid, (by,), 0.0)
    return queue


def gone(**more: Any) -> Change:
    return Change(ASSIGNED_POD, Action.DELETE, pod("gone", on="n", **more), None)


def came(obj: Obj) -> Change:
    change = node_change(None, obj)
    assert change is not None
    return change


def test_the_important_go_first_and_equals_in_turn() -> None:
    queue = new_queue()
    for one in (info("a"), info("b", 5), info("c"), info("d", 5)):
        queue.add(one, 0.0)
    assert drain(queue, 0.0) == ["n/b", "n/d", "n/a", "n/c"]


def test_an_unschedulable_pod_waits_for_what_its_filters_care_about() -> None:
    queue = refused()
    assert not queue.on_change(Change(ASSIGNED_POD, Action.ADD, None, pod("x", on="n")), 20.0)
    assert queue.pop(20.0) is None
    assert queue.on_change(gone(), 20.0)
    assert drain(queue, 20.0) == ["n/a"]


def test_a_hint_looks_at_the_very_change() -> None:
    queue = refused(cpu="3")
    assert not queue.on_change(came(node("small", "2")), 20.0)
    assert queue.on_change(came(node("large", "4")), 20.0)
    queue = refused(by="NodeResourcesFit", cpu="3")
    cordon = node_change(node("a", "4"), node("a", "4", unschedulable=True))
    assert cordon is not None
    assert not queue.on_change(cordon, 20.0)
    queue = refused(by="TaintToleration")
    taint = [{"key": "k", "effect": "NoSchedule"}]
    assert not queue.on_change(came(node("tainted", taints=taint)), 20.0)
    cleared = node_change(node("tainted", taints=taint), node("tainted"))
    assert cleared is not None
    assert queue.on_change(cleared, 20.0)
    queue = refused(by="NodeAffinity", nodeSelector={"disk": "ssd"})
    assert not queue.on_change(came(node("plain")), 20.0)
    assert queue.on_change(came(node("fast", labels={"disk": "ssd"})), 20.0)
    queue = refused(by="NodePorts", port=80)
    assert not queue.on_change(gone(port=81), 20.0)
    assert queue.on_change(gone(port=80), 20.0)


def test_company_wakes_those_who_want_it() -> None:
    term = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    queue = refused(by="InterPodAffinity", affinity={"podAffinity": required})
    other = Change(ASSIGNED_POD, Action.ADD, None, pod("o", on="n", labels={"app": "y"}))
    friend = Change(ASSIGNED_POD, Action.ADD, None, pod("f", on="n", labels={"app": "x"}))
    assert not queue.on_change(other, 20.0)
    assert queue.on_change(friend, 20.0)
    queue = refused(by="InterPodAffinity", affinity={"podAntiAffinity": required})
    assert not queue.on_change(gone(labels={"app": "y"}), 20.0)
    assert queue.on_change(gone(labels={"app": "x"}), 20.0)


def test_spreading_cares_for_pods_that_it_counts() -> None:
    selector = {"matchLabels": {"app": "x"}}
    rule = {"topologyKey": "zone", "maxSkew": 1, "labelSelector": selector}
    spread = [{**rule, "whenUnsatisfiable": "DoNotSchedule"}]
    queue = refused(by="PodTopologySpread", topologySpreadConstraints=spread)
    assert not queue.on_change(gone(labels={"app": "y"}), 20.0)
    assert queue.on_change(gone(labels={"app": "x"}), 20.0)


def test_back_off_grows_and_is_waited_for_after_errors() -> None:
    queue = new_queue()
    queue.add(info("a"), 0.0)
    waits = []
    now = 0.0
    for _ in range(6):
        popped = queue.pop(now)
        assert popped is not None
        queue.set_failed(popped.uid, now)
        assert queue.pop(now) is None
        waits.append(queue.next_due() - now)
        now = queue.next_due()
    assert waits == [1, 2, 4, 8, 10, 10]


def test_who_backs_off_gives_way_to_others_and_waits_for_nobody() -> None:
    queue = refused()
    queue.on_change(gone(), 0.1)
    assert queue.count("backoff") == 1
    queue.add(info("b"), 0.1)
    assert drain(queue, 0.1) == ["n/b", "n/a"], "although its back-off is not over"


def test_a_change_while_the_pod_is_in_hand_is_not_lost() -> None:
    queue = new_queue()
    queue.add(info("a"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.on_change(came(node("n")), 0.0)
    queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), 0.0)
    assert queue.count("backoff") == 1


def test_a_change_that_helps_nobody_moves_nobody_who_is_in_hand() -> None:
    queue = new_queue()
    queue.add(info("a", cpu="8"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.on_change(came(node("n", "4")), 0.0)
    queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), 0.0)
    assert queue.count("unschedulable") == 1


def test_when_too_much_has_happened_the_pod_is_tried_again() -> None:
    queue = new_queue()
    queue.add(info("a", cpu="8"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    for _ in range(CHANGES_MAX + 1):
        queue.on_change(came(node("n", "4")), 0.0)
    queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), 0.0)
    assert queue.count("backoff") == 1


def test_a_removed_pod_is_not_given_out_and_may_come_again() -> None:
    queue = new_queue()
    queue.add(info("a"), 0.0)
    queue.remove("uid-of-a")
    assert queue.pop(0.0) is None
    queue.add(info("a"), 0.0)
    assert drain(queue, 0.0) == ["n/a"]


def test_a_changed_pod_is_tried_again_and_one_whose_status_changed_is_not() -> None:
    queue = refused(cpu="8")
    queue.add(info("a", cpu="8"), 50.0)
    assert queue.pop(50.0) is None
    queue.add(info("a", cpu="1"), 50.0)
    assert drain(queue, 50.0) == ["n/a"]


def test_gates_keep_a_pod_out_until_the_last_is_gone() -> None:
    queue = new_queue()
    queue.add(info("a", schedulingGates=[{"name": "x"}, {"name": "y"}]), 0.0)
    assert (queue.pop(0.0), queue.count("gated")) == (None, 1)
    queue.add(info("a", schedulingGates=[{"name": "y"}]), 1.0)
    assert (queue.pop(1.0), queue.count("gated")) == (None, 1)
    queue.flush_unschedulable(10_000.0)
    assert queue.count("gated") == 1
    queue.add(info("a"), 2.0)
    assert drain(queue, 2.0) == ["n/a"]


def test_after_five_minutes_everything_is_tried_again() -> None:
    queue = refused(by="NodeName")
    queue.flush_unschedulable(UNSCHEDULABLE_SECONDS_MAX - 1)
    assert queue.pop(UNSCHEDULABLE_SECONDS_MAX - 1) is None
    queue.flush_unschedulable(UNSCHEDULABLE_SECONDS_MAX)
    assert drain(queue, UNSCHEDULABLE_SECONDS_MAX) == ["n/a"]
