"""From the virtual servers that are there to those that are wanted. Pure.

An endpoint that goes gets weight 0: no new connections, but those it has go on; it is removed when
they have ended (`drained`). Over UDP and SCTP it is removed at once, as kube-proxy does: clients
would go on for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import attrs

from k8slite.proxy.ipvs_plan import Destination, Server, VirtualServer

__all__ = [
    "AddDestination",
    "AddServer",
    "DeleteDestination",
    "DeleteServer",
    "Live",
    "SetServer",
    "SetWeight",
    "Step",
    "apply",
    "drained",
    "draining",
    "intact",
    "steps",
]

WEIGHT: Final = 1
GRACEFUL: Final = ("TCP",)


@attrs.define
class Live:
    """A virtual server as the kernel has it. `weights`: 0 while an endpoint drains."""

    scheduler: str
    persistence: int
    weights: dict[Destination, int] = attrs.Factory(dict)


class AddServer(NamedTuple):
    where: VirtualServer
    scheduler: str
    persistence: int


class SetServer(NamedTuple):
    where: VirtualServer
    scheduler: str
    persistence: int


class DeleteServer(NamedTuple):
    where: VirtualServer


class AddDestination(NamedTuple):
    where: VirtualServer
    end: Destination
    weight: int


class SetWeight(NamedTuple):
    where: VirtualServer
    end: Destination
    weight: int


class DeleteDestination(NamedTuple):
    where: VirtualServer
    end: Destination


Step = AddServer | SetServer | DeleteServer | AddDestination | SetWeight | DeleteDestination


def steps(
    there: Mapping[VirtualServer, Live], wanted: Mapping[VirtualServer, Server], scheduler: str
) -> Iterator[Step]:
    """Servers first, with their endpoints; then those that go."""
    for where, server in wanted.items():
        live = there.get(where)
        if live is None:
            yield AddServer(where, scheduler, server.persistence)
        elif (live.scheduler, live.persistence) != (scheduler, server.persistence):
            yield SetServer(where, scheduler, server.persistence)
        weights = live.weights if live is not None else {}
        for end in dict.fromkeys(server.endpoints):
            if end not in weights:
                yield AddDestination(where, end, WEIGHT)
            elif weights[end] != WEIGHT:
                yield SetWeight(where, end, WEIGHT)
        for end, weight in weights.items():
            if end in server.endpoints:
                continue
            if where.protocol not in GRACEFUL:
                yield DeleteDestination(where, end)
            elif weight:
                yield SetWeight(where, end, 0)
    for where in there:
        if where not in wanted:
            yield DeleteServer(where)


def draining(there: Mapping[VirtualServer, Live]) -> dict[VirtualServer, list[Destination]]:
    """Endpoints that go, by their servers."""
    found = {
        where: [end for end, weight in live.weights.items() if not weight]
        for where, live in there.items()
    }
    return {where: ends for where, ends in found.items() if ends}


def drained(
    leaving: Mapping[VirtualServer, list[Destination]],
    connections: Mapping[tuple[VirtualServer, Destination], int],
) -> Iterator[Step]:
    """Removes those of `draining` that have no connections left."""
    for where, ends in leaving.items():
        for end in ends:
            if not connections.get((where, end)):
                yield DeleteDestination(where, end)


def apply(there: dict[VirtualServer, Live], step: Step) -> None:
    """What is there once the kernel has taken the step."""
    if isinstance(step, AddServer):
        there[step.where] = Live(step.scheduler, step.persistence)
    elif isinstance(step, SetServer):
        there[step.where].scheduler = step.scheduler
        there[step.where].persistence = step.persistence
    elif isinstance(step, DeleteServer):
        del there[step.where]
    elif isinstance(step, DeleteDestination):
        del there[step.where].weights[step.end]
    else:
        there[step.where].weights[step.end] = step.weight


def intact(there: Mapping[VirtualServer, Live], known: Mapping[VirtualServer, Live]) -> bool:
    """Whether the kernel still has what was written; an endpoint that drains may have gone."""
    return {where: _lasting(live) for where, live in there.items()} == {
        where: _lasting(live) for where, live in known.items()
    }


def _lasting(live: Live) -> tuple[str, int, frozenset[Destination]]:
    ends = frozenset(end for end, weight in live.weights.items() if weight)
    return live.scheduler, live.persistence, ends
