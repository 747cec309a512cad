"""Events: counted when repeated, combined when similar, dropped when too many."""

from __future__ import annotations

import trio

from k8slite.api.kinds import EVENTS
from k8slite.api.meta import Obj, name
from k8slite.client.events import (
    BURST,
    OUTBOX_EVENTS_MAX,
    EventCorrelator,
    EventRecorder,
    open_event_recorder,
)
from tests.client.fake_api import FakeApi
from tests.client.world import EPOCH, MemoryHost

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "5"},
}


def event(message: str, pod: str = "p") -> Obj:
    return {
        "metadata": {"namespace": "n"},
        "involvedObject": {"kind": "Pod", "namespace": "n", "name": pod, "uid": "u"},
        "type": "Normal",
        "reason": "R",
        "message": message,
        "source": {"component": "c"},
    }


async def test_the_same_event_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeApi()
    async with open_event_recorder(api, MemoryHost(), "scheduler") as recorder:
        for _ in range(3):
            recorder.event(POD, "Warning", "FailedScheduling", "0/1 nodes are available")
            await trio.sleep(1)
        [written] = api.all(EVENTS)
        assert written["count"] == 3
        assert written["firstTimestamp"] == "2023-11-14T22:13:20Z"
        assert written["lastTimestamp"] == "2023-11-14T22:13:22Z"
        assert written["involvedObject"] == {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": "p",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "5",
        }
        assert written["source"] == {"component": "scheduler"}
        assert name(written) == f"p.{int(EPOCH * 1e9):x}"
        api.remove(EVENTS, f"n/{name(written)}")
        recorder.event(POD, "Warning", "FailedScheduling", "0/1 nodes are available")
        await trio.sleep(1)
        assert len(api.all(EVENTS)) == 1, "an event that has expired is written anew"


def test_similar_events_are_combined() -> None:
    correlator = EventCorrelator()
    written = [correlator.observe(event(f"try {i}"), i) for i in range(15)]
    assert all(w is not None for w in written)
    messages = [w[0]["message"] for w in written if w]
    assert messages[8] == "try 8"
    assert messages[9] == "(combined from similar events): try 9"
    assert messages[14] == "(combined from similar events): try 14"
    assert [w[1] for w in written if w] == [False] * 10 + [True] * 5
    assert written[14] is not None
    assert written[14][0]["count"] == 6


def test_a_noisy_source_is_silenced_about_that_object_only() -> None:
    correlator = EventCorrelator()
    told = [correlator.observe(event("same"), 0.0) for _ in range(BURST + 5)]
    assert [t is None for t in told] == [False] * BURST + [True] * 5
    assert correlator.observe(event("same", pod="q"), 0.0) is not None
    assert correlator.observe(event("same"), 301.0) is not None


async def test_when_the_outbox_is_full_events_are_dropped_and_counted() -> None:
    recorder = EventRecorder(FakeApi(), MemoryHost(), "c")
    for _ in range(OUTBOX_EVENTS_MAX + 3):
        recorder.event(POD, "Normal", "R", "m")
    assert recorder.dropped == 3
