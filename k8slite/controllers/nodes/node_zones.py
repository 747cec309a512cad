"""How fast nodes may be given up, zone by zone (pure).

A zone of which most is silent is more likely cut off than dead: then fewer nodes are given up, or
none. When all zones are silent it is we who cannot hear, and nothing is evicted at all.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import Enum

from attrs import define, field

from k8slite.api.meta import Obj, labels, name
from k8slite.controllers.nodes.node_health import is_ready

__all__ = ["EvictionRate", "State", "Zones", "zone_of"]

REGION, ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
SILENT_MIN = 2
"""So few silent nodes are no disruption, whatever share of the zone they are."""


class State(Enum):
    """By kube-controller-manager's names."""

    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


@define
class EvictionRate:
    """A token bucket of one: how many nodes a second may be tainted for eviction."""

    per_second: float
    tokens: float = 1.0
    filled_at: float = 0.0

    def available(self, now: float) -> bool:
        self.tokens = min(1.0, self.tokens + (now - self.filled_at) * self.per_second)
        self.filled_at = now
        return self.per_second > 0 and self.tokens >= 1.0

    def take(self) -> None:
        assert self.tokens >= 1.0
        self.tokens -= 1.0


def zone_of(node: Obj) -> str:
    """ "region:zone", "" for a node that says neither."""
    region, zone = labels(node).get(REGION, ""), labels(node).get(ZONE, "")
    return f"{region}:{zone}" if region or zone else ""


@define
class Zones:
    """The states and rates of all zones. `all_dark`: not one node is ready anywhere."""

    per_second: float
    per_second_secondary: float
    unhealthy_share: float
    large: int
    all_dark: bool = False
    _states: dict[str, State] = field(factory=dict)
    _rates: dict[str, EvictionRate] = field(factory=dict)

    def rate_of(self, node: Obj) -> EvictionRate:
        zone = zone_of(node)
        if zone not in self._rates:
            self._rates[zone] = EvictionRate(self.per_second)
        return self._rates[zone]

    def state_of(self, zone: str) -> State:
        return self._states.get(zone, State.NORMAL)

    def update(
        self, nodes: Sequence[Obj], now: float, silent: Container[str] = ()
    ) -> dict[str, State]:
        """Look at all nodes, of which some are `silent` by name although their status does not say
        so yet; the zones whose state is another one now."""
        by_zone: dict[str, list[Obj]] = {}
        for node in nodes:
            by_zone.setdefault(zone_of(node), []).append(node)
        changed = {}
        for zone, members in by_zone.items():
            dark = sum(not is_ready(n) or name(n) in silent for n in members)
            state = self._judge(dark, len(members))
            if state is not self.state_of(zone):
                changed[zone] = state
            self._states[zone] = state
            rate = self.rate_of(members[0])
            rate.available(now)  # what was saved up at the old rate
            rate.per_second = self._speed(state, len(members))
        for gone in [zone for zone in self._states if zone not in by_zone]:
            del self._states[gone]
            self._rates.pop(gone, None)
        self.all_dark = bool(nodes) and all(s is State.FULL for s in self._states.values())
        return changed

    def _judge(self, dark: int, size: int) -> State:
        if dark == size:
            return State.FULL
        if dark > SILENT_MIN and dark / size >= self.unhealthy_share:
            return State.PARTIAL
        return State.NORMAL

    def _speed(self, state: State, size: int) -> float:
        if state is not State.PARTIAL:
            return self.per_second
        return self.per_second_secondary if size > self.large else 0.0
