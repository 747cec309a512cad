"""The queue: order, back-off, and who wakes up for which event."""

from __future__ import annotations

from k8slite.scheduler.framework import ClusterEvent
from k8slite.scheduler.plugins.table import FILTERS
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.queue import UNSCHEDULABLE_SECONDS_MAX, SchedulingQueue
from tests.scheduler.objects import pod


def info(name: str, priority: int = 0, **more: str) -> PodInfo:
    return pod_info(pod(name, priority=priority, **more))  # type: ignore[arg-type]  # all strings


def drain(queue: SchedulingQueue, now: float) -> list[str]:
    names = []
    while (popped := queue.pop(now)) is not None:
        names.append(popped.key)
    return names


def test_the_important_go_first_and_equals_in_turn() -> None:
    queue = SchedulingQueue(FILTERS)
    for one in (info("a"), info("b", 5), info("c"), info("d", 5)):
        queue.add(one, 0.0)
    assert drain(queue, 0.0) == ["n/b", "n/d", "n/a", "n/c"]


def test_an_unschedulable_pod_waits_for_an_event_that_its_filters_care_about() -> None:
    queue = SchedulingQueue(FILTERS)
    queue.add(info("a"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), 0.0)
    assert not queue.on_event(ClusterEvent.POD_PLACED, 20.0)
    assert queue.pop(20.0) is None
    assert queue.on_event(ClusterEvent.POD_GONE, 20.0)
    assert drain(queue, 20.0) == ["n/a"]


def test_an_event_soon_after_a_failure_waits_for_the_back_off() -> None:
    queue = SchedulingQueue(FILTERS)
    queue.add(info("a"), 0.0)
    waits = []
    now = 0.0
    for _ in range(6):
        popped = queue.pop(now)
        assert popped is not None
        queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), now)
        queue.on_event(ClusterEvent.NODE_ADDED, now)
        assert queue.pop(now) is None
        waits.append(queue.next_due() - now)
        now = queue.next_due()
    assert waits == [1, 2, 4, 8, 10, 10]


def test_an_event_while_the_pod_is_in_hand_is_not_lost() -> None:
    queue = SchedulingQueue(FILTERS)
    queue.add(info("a"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.on_event(ClusterEvent.NODE_ADDED, 0.0)
    queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), 0.0)
    assert drain(queue, 1.0) == ["n/a"]


def test_a_removed_pod_is_not_given_out_and_may_come_again() -> None:
    queue = SchedulingQueue(FILTERS)
    queue.add(info("a"), 0.0)
    queue.remove("uid-of-a")
    assert queue.pop(0.0) is None
    queue.add(info("a"), 0.0)
    assert drain(queue, 0.0) == ["n/a"]


def test_a_changed_pod_is_tried_again_and_one_whose_status_changed_is_not() -> None:
    queue = SchedulingQueue(FILTERS)
    queue.add(info("a", cpu="8"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.set_unschedulable(popped.uid, ("NodeResourcesFit",), 0.0)
    queue.add(info("a", cpu="8"), 50.0)
    assert queue.pop(50.0) is None
    queue.add(info("a", cpu="1"), 50.0)
    assert drain(queue, 50.0) == ["n/a"]


def test_after_five_minutes_everything_is_tried_again() -> None:
    queue = SchedulingQueue(FILTERS)
    queue.add(info("a"), 0.0)
    popped = queue.pop(0.0)
    assert popped is not None
    queue.set_unschedulable(popped.uid, ("NodeName",), 0.0)
    queue.flush_unschedulable(UNSCHEDULABLE_SECONDS_MAX - 1)
    assert queue.pop(UNSCHEDULABLE_SECONDS_MAX - 1) is None
    queue.flush_unschedulable(UNSCHEDULABLE_SECONDS_MAX)
    assert drain(queue, UNSCHEDULABLE_SECONDS_MAX) == ["n/a"]
