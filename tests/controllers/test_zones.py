"""Disruption of zones: how fast nodes may be given up, and when not at all."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.controllers.nodes.node_zones import State, Zones, zone_of
from tests.controllers.objects import node


def in_zone(zone: str, count: int, silent: int) -> list[Obj]:
    found = []
    for i in range(count):
        obj = node(f"{zone}{i}", ready="True" if i >= silent else "Unknown")
        obj["metadata"].setdefault("labels", {})["topology.kubernetes.io/zone"] = zone
        found.append(obj)
    return found


def zones() -> Zones:
    return Zones(0.1, 0.01, 0.55, 50)


def test_states_of_zones() -> None:
    judged = zones()
    for silent, state in (
        (0, State.NORMAL),
        (2, State.NORMAL),
        (3, State.PARTIAL),
        (5, State.FULL),
    ):
        judged.update([*in_zone("a", 5, silent), *in_zone("b", 5, 0)], 0.0)
        assert judged.state_of(":a") is state, silent
        assert judged.state_of(":b") is State.NORMAL
        assert not judged.all_dark
    assert judged.update([*in_zone("a", 5, 0), *in_zone("b", 5, 0)], 0.0) == {":a": State.NORMAL}
    assert judged.update([*in_zone("a", 5, 0), *in_zone("b", 5, 0)], 0.0) == {}


def test_a_small_zone_that_is_mostly_silent_loses_no_node() -> None:
    judged = zones()
    nodes = [*in_zone("a", 5, 3), *in_zone("b", 60, 40), *in_zone("c", 4, 4), *in_zone("d", 3, 0)]
    judged.update(nodes, 0.0)
    speeds = {zone_of(n): judged.rate_of(n).per_second for n in nodes}
    assert speeds == {":a": 0.0, ":b": 0.01, ":c": 0.1, ":d": 0.1}
    assert not judged.rate_of(nodes[0]).available(1000.0)


def test_each_zone_has_a_rate_of_its_own() -> None:
    judged = zones()
    a, b = in_zone("a", 3, 1), in_zone("b", 3, 1)
    judged.update([*a, *b], 0.0)
    judged.rate_of(a[0]).take()
    assert not judged.rate_of(a[0]).available(1.0)
    assert judged.rate_of(b[0]).available(1.0)
    assert judged.rate_of(a[0]).available(11.0)


def test_when_all_zones_are_dark_nothing_is_evicted() -> None:
    judged = zones()
    judged.update([*in_zone("a", 2, 2), *in_zone("b", 3, 3)], 0.0)
    assert judged.all_dark
    judged.update([*in_zone("a", 2, 2), *in_zone("b", 3, 2)], 0.0)
    assert not judged.all_dark
    judged.update([], 0.0)
    assert not judged.all_dark
