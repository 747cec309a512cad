"""The knob of group commit, as a table."""

from __future__ import annotations

import pytest

from raftkv.server.batching import ENOUGH, FLIGHT_SECONDS, IDLE_SECONDS, Batching


def test_a_lone_client_never_waits() -> None:
    batching = Batching()
    for turn in range(10):
        assert batching.enough(1, False, float(turn))
        batching.proposed(1)


@pytest.mark.parametrize(("in_flight", "limit"), [(False, IDLE_SECONDS), (True, FLIGHT_SECONDS)])
def test_a_crowd_is_waited_for_but_not_long(in_flight: bool, limit: float) -> None:
    batching = Batching()
    batching.proposed(64)
    assert not batching.enough(8, in_flight, 10.0)
    assert batching.deadline == 10.0 + limit
    assert not batching.enough(16, in_flight, 10.0 + limit / 2)
    assert batching.deadline == 10.0 + limit, "counted from the first that waits"
    assert batching.enough(16, in_flight, 10.0 + limit)


def test_most_of_the_crowd_is_enough_unless_something_is_in_flight() -> None:
    batching = Batching()
    batching.proposed(64)
    assert batching.enough(batching.wanted(False), False, 0.0)
    assert not batching.enough(64, True, 0.0)
    assert batching.enough(ENOUGH, True, 0.0)


def test_expectations_sink_when_the_crowd_has_gone() -> None:
    batching = Batching()
    batching.proposed(64)
    waits, now = 0, 0.0
    while not batching.enough(1, False, now):
        waits += 1
        now = batching.deadline
        assert batching.enough(1, False, now)
        batching.proposed(1)
    assert waits < 10
