"""When a node runs short of something: thresholds, and the conditions that tell of it. Pure.

Signals, defaults and words are the kubelet's (its eviction manager). The machine may carry several
nodes; what is left of it is left to all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import attrs

from k8slite.api.quantity import canonical, value
from k8slite.kubelet.stats.summary import MachineState

__all__ = [
    "CONDITION_OF",
    "HARD",
    "MEMORY",
    "NODE_FS",
    "NODE_INODES",
    "PIDS",
    "RESOURCE_OF",
    "Observation",
    "Pressure",
    "Threshold",
    "met",
    "observe",
    "reserved",
]

MEMORY: Final = "memory.available"
NODE_FS: Final = "nodefs.available"
NODE_INODES: Final = "nodefs.inodesFree"
PIDS: Final = "pid.available"

CONDITION_OF: Final = {
    MEMORY: "MemoryPressure",
    NODE_FS: "DiskPressure",
    NODE_INODES: "DiskPressure",
    PIDS: "PIDPressure",
}
RESOURCE_OF: Final = {
    MEMORY: "memory",
    NODE_FS: "ephemeral-storage",
    NODE_INODES: "inodes",
    PIDS: "pids",
}
_ORDER: Final = tuple(CONDITION_OF)
"""Memory first, as the kubelet does: it cannot wait."""
PERCENT: Final = 100


@attrs.frozen
class Threshold:
    """`least`: a quantity, or a share of the capacity such as "10%". `grace_seconds`: how long it
    must have been met (a soft threshold). `reclaim`: how much more is to be freed then."""

    signal: str
    least: str
    grace_seconds: float = 0.0
    reclaim: str = "0"

    def bytes_of(self, capacity: int) -> int:
        return _amount(self.least, capacity)

    def wanted(self, capacity: int) -> int:
        """What must be available once this threshold was met."""
        return self.bytes_of(capacity) + _amount(self.reclaim, capacity)


HARD: Final = (
    Threshold(MEMORY, "100Mi"),
    Threshold(NODE_FS, "10%"),
    Threshold(NODE_INODES, "5%"),
)


def _amount(text: str, capacity: int) -> int:
    if text.endswith("%"):
        return int(capacity * float(text[:-1]) / PERCENT)
    return value(text)


class Observation(NamedTuple):
    available: int
    capacity: int


def observe(machine: MachineState) -> dict[str, Observation]:
    """By signal; what could not be measured is left out."""
    found = {}
    if machine.memory_bytes:
        found[MEMORY] = Observation(machine.memory_available_bytes, machine.memory_bytes)
    disk = machine.file_system
    if disk is not None and disk.capacity_bytes:
        found[NODE_FS] = Observation(disk.available_bytes, disk.capacity_bytes)
        if disk.inodes:  # some file systems have no fixed number of them
            found[NODE_INODES] = Observation(disk.inodes_free, disk.inodes)
    if machine.pids_max:
        found[PIDS] = Observation(machine.pids_max - machine.pids, machine.pids_max)
    return found


def met(
    thresholds: Iterable[Threshold],
    observations: Mapping[str, Observation],
    *,
    before: Iterable[Threshold] = (),
) -> list[Threshold]:
    """Those of which too little is available, memory first. `before`: those that were met at the
    last look, which must be cleared by their `reclaim` as well."""
    still = set(before)
    found = []
    for threshold in thresholds:
        seen = observations.get(threshold.signal)
        if seen is None:
            continue
        limit = (
            threshold.wanted(seen.capacity)
            if threshold in still
            else threshold.bytes_of(seen.capacity)
        )
        if seen.available < limit:
            found.append(threshold)
    return sorted(found, key=lambda each: _ORDER.index(each.signal))


def reserved(thresholds: Iterable[Threshold], capacity: Mapping[str, str]) -> dict[str, str]:
    """What the hard thresholds keep of a node's capacity, by resource: it is not allocatable."""
    kept = {}
    for threshold in thresholds:
        resource = RESOURCE_OF[threshold.signal]
        if not threshold.grace_seconds and resource in ("memory", "ephemeral-storage"):
            amount = threshold.bytes_of(value(str(capacity.get(resource, "0"))))
            kept[resource] = canonical(str(amount))
    return kept


@attrs.define
class Pressure:
    """Which conditions hold: one that was seen stays for `transition_seconds`.

    Owns the times at which thresholds were first met, and conditions last seen.
    """

    transition_seconds: float
    _since: dict[Threshold, float] = attrs.field(factory=dict)
    _seen: dict[str, float] = attrs.field(factory=dict)

    def note(self, found: Sequence[Threshold], now: float) -> list[Threshold]:
        """After a look: those that have been met for their grace, and are to be acted on."""
        self._since = {each: self._since.get(each, now) for each in found}
        for each in found:
            self._seen[CONDITION_OF[each.signal]] = now
        return [each for each in found if now - self._since[each] >= each.grace_seconds]

    def met_before(self) -> list[Threshold]:
        return list(self._since)

    def conditions(self, now: float) -> frozenset[str]:
        """Such as MemoryPressure."""
        return frozenset(
            kind for kind, at in self._seen.items() if now - at < self.transition_seconds
        )
