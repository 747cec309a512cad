"""The watch benchmark counts what watchers get, and doesn't believe a server that skips."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bench.watch import Crowd, measure
from bench.watch_receiver import Received, Unsound, Watchers


def event(revision: int) -> list[object]:
    return ["put", [b"k", b"%020.9f" % 1.0, 1, revision, 1, 0], None]


def test_every_watcher_gets_every_event(tmp_path: Path) -> None:
    crowd = Crowd(members=1, watchers=20, connections=3, seconds=0.3, directory=str(tmp_path))
    (result,) = trio.run(measure, crowd)["results"]
    assert result["events"] == 20 * result["puts"] > 0
    assert result["events_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_pushes_are_counted_for_one_watch_and_for_several() -> None:
    received = Received()
    watchers = Watchers(2, received)
    watchers.take([[1, [7]], [2, [7]]])
    assert watchers.created
    watchers.take([[0, 0, "events", 9, [event(8), event(9)]], [0, 1, "events", 8, [event(8)]]])
    assert (received.events, received.pushes, watchers.revision) == (3, 2, 8)
    watchers.take([[0, 1, "events", 9, [event(9)]], [0, [0, 1], "events", 10, [event(10)]]])
    assert (received.events, received.pushes, watchers.revision) == (6, 4, 10)


@pytest.mark.parametrize(
    "push",
    [
        [0, 0, "events", 9, [event(9)]],  # 8 is missing
        [0, 0, "events", 8, [event(8), event(8)]],
        [0, 0, "events", 9, [event(8)]],
        [0, [0, 1], "canceled", ["error", "NoLeader", "no leader", []]],
    ],
)
def test_gaps_repetitions_and_ends_are_found(push: list[object]) -> None:
    watchers = Watchers(2, Received())
    watchers.take([[1, [7]], [2, [7]]])
    with pytest.raises(Unsound):
        watchers.take([push])
