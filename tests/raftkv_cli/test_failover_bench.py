"""The failover benchmark kills, measures and leaves nothing behind."""

from __future__ import annotations

import trio

from bench.failover import measure, plot, summary


def test_one_kill() -> None:
    (gap,) = trio.run(measure, 3, 1)
    assert gap > 0


def test_distribution() -> None:
    found = summary([0.31, 0.12, 0.15])
    assert (found["kills"], found["median_ms"], found["max_ms"]) == (3, 150.0, 310.0)
    assert plot([0.31, 0.12, 0.15]).splitlines()[1].split()[4] == "2"
