"""Priority and fairness of one server: the objects that say it, read whenever they change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj
from k8slite.apiserver.call import User
from k8slite.apiserver.flow.classify import Classifier
from k8slite.apiserver.flow.levels import Level
from k8slite.apiserver.kind_table import KindTable
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.requestinfo import RequestInfo

__all__ = ["FLOW_SCHEMAS", "LEVELS", "FlowControl"]

FLOW_SCHEMAS = KIND["flowschemas.flowcontrol.apiserver.k8s.io"]
LEVELS = KIND["prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"]

_ENDLESS = frozenset(("connect",))
_STREAMS = frozenset(("log", "exec", "attach", "portforward", "proxy"))
"""Subresources that may take for ever; their kubelets bound them."""
OBJECTS_PER_SEAT = 1_000
WIDTH_MAX = 10


class Seat(NamedTuple):
    """Taken in a level."""

    level: Level
    width: int

    def leave(self) -> None:
        """Give it back, once."""
        self.level.leave(self.width)


class FlowControl:
    """Lets requests in. Without configuration (at the very first start) everybody comes in."""

    def __init__(self, mirror: Mirror, kinds: KindTable, requests_max: int) -> None:
        self._mirror = mirror
        self._kinds = kinds
        self._requests_max = requests_max
        self._schemas = mirror.cache(FLOW_SCHEMAS)
        self._configurations = mirror.cache(LEVELS)
        self._built_at: tuple[int, ...] = ()
        self._classifier = Classifier(())
        self._levels: dict[str, Level] = {}

    async def take_seat(self, user: User, info: RequestInfo) -> Seat | None:
        """A seat for as long as the request is at work, or None where there is no bound; whoever
        gets one calls its `leave`. Raises ApiError 429.
        """
        if info.subresource in _STREAMS or info.verb in _ENDLESS:
            return None
        self._refresh()
        flow = self._classifier.classify(user, info)
        level = self._levels.get(flow.level)
        if level is None:
            return None
        width = self._width(info) if info.verb == "list" else 1
        if not level.try_enter(width):
            await level.enter(flow.name, width)
        return Seat(level, width)

    def levels(self) -> Iterator[Level]:
        """For the metrics."""
        self._refresh()
        return iter(self._levels.values())

    def _width(self, info: RequestInfo) -> int:
        """How many seats a list takes: more, the more there is to list."""
        kind = self._kinds.find(info.group, info.version, info.resource)
        if kind is None:
            return 1
        count = len(self._mirror.cache(kind).entries)
        return max(1, min(WIDTH_MAX, math.ceil(count / OBJECTS_PER_SEAT)))

    def _refresh(self) -> None:
        schemas, configurations = self._schemas, self._configurations
        at = (
            schemas.floor, schemas.changed_at, configurations.floor, configurations.changed_at,
        )  # fmt: skip
        if at == self._built_at:
            return
        self._built_at = at
        self._classifier = Classifier(entry.parsed() for entry in schemas.entries.values())
        wanted = [entry.parsed() for entry in configurations.entries.values()]
        shares = sum(_shares(level) for level in wanted) or 1
        before, self._levels = self._levels, {}
        for configuration in wanted:
            name = configuration["metadata"]["name"]
            seats = None
            if (configuration.get("spec") or {}).get("type") != "Exempt":
                seats = math.ceil(self._requests_max * _shares(configuration) / shares)
            level = before.get(name) or Level(name, seats, 0)
            level.seats, level.waiting_max = seats, _waiting_max(configuration)
            self._levels[name] = level


def _shares(configuration: Obj) -> int:
    limited = (configuration.get("spec") or {}).get("limited") or {}
    return int(limited.get("nominalConcurrencyShares") or 0)


def _waiting_max(configuration: Obj) -> int:
    """One flow may fill as many queues as its hand holds."""
    limited = (configuration.get("spec") or {}).get("limited") or {}
    response = limited.get("limitResponse") or {}
    if response.get("type") != "Queue":
        return 0
    queuing = response.get("queuing") or {}
    return int(queuing.get("handSize", 8)) * int(queuing.get("queueLengthLimit", 50))
