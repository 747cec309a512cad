"""The check of a log without starting on it, for `raftkv wal verify`. Changes nothing."""

from __future__ import annotations

import attrs

from raftkv.errors import Corrupt
from raftkv.host import Disk
from raftkv.storage.replay import Recovered, replay, segment_name

__all__ = ["Report", "verify"]


@attrs.frozen
class Report:
    """`problem` is None where a member could start on this log."""

    problem: Corrupt | None
    lines: list[str]
    """Findings, for people."""

    @property
    def ok(self) -> bool:
        return self.problem is None


def verify(disk: Disk) -> Report:
    """Read everything, check every checksum, say what is there."""
    try:
        found = replay(disk)
    except Corrupt as problem:
        return Report(problem, [str(problem)])
    if found is None:
        return Report(None, ["there is no log here: a start would make a new one"])
    return Report(None, _describe(found))


def _describe(found: Recovered) -> list[str]:
    identity, state = found.identity, found.hard_state
    lines = [
        f"cluster {identity.cluster:x}, member {identity.member:x}, "
        f"incarnation {identity.incarnation:x}",
        f"term {state.term}, vote {state.vote:x}, commit {state.commit}",
    ]
    for segment in found.segments:
        name = segment_name(segment.sequence)
        lines.append(f"{name}: entries from {segment.last_index + 1} on")
    if found.entries:
        first, last = found.entries[0].index, found.entries[-1].index
        lines.append(f"entries {first} to {last}, {len(found.entries)} in all")
    else:
        lines.append("no entries")
    if found.snapshot_meta is None:
        lines.append("no snapshot")
    else:
        meta = found.snapshot_meta
        size = len(found.snapshot_data)
        lines.append(f"snapshot at entry {meta.index}, term {meta.term}, {size} bytes")
    if found.tail.torn:
        lines.append(
            f"a torn record at byte {found.tail.offset} of the last segment will be cut off: "
            "it was never acknowledged"
        )
    lines += [f"warning: {warning}" for warning in found.warnings]
    lines += [f"leftover: {name}" for name in found.skipped]
    return lines
