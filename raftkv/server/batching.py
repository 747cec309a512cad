"""When the proposals that wait are enough to become an entry: group commit's only knob.

Pure. An entry costs much the same whether it holds one command or a hundred: a turn of every
member, two or three syncs, a message each way. Proposing whatever is there at once makes small
entries under load, since the clients that were answered first come back first. So:

- while an own entry is not committed, the next one gathers, at most `FLIGHT_SECONDS` long (on a
  slow network entries then overlap, as they must);
- otherwise, if lately more clients were at work, wait for most of them, at most `IDLE_SECONDS`.

A lone client never waits: one proposal is all that is expected of it.
"""

from __future__ import annotations

__all__ = ["Batching"]

FLIGHT_SECONDS = 0.005
IDLE_SECONDS = 0.002
SHARE = 0.8
"""Of the clients lately at work, those to wait for."""
ENOUGH = 1024


class Batching:
    __slots__ = ("_expected", "_since", "deadline")

    def __init__(self) -> None:
        self._expected = 1.0
        self._since: float | None = None  # when the first of those that wait was seen
        self.deadline = 0.0
        """When those that wait will be proposed in any case; meaningful after `enough` said no."""

    def enough(self, waiting: int, in_flight: bool, now: float) -> bool:
        """Whether to propose now."""
        if waiting >= ENOUGH or (not in_flight and waiting >= SHARE * self._expected):
            return True
        if self._since is None:
            self._since = now
        self.deadline = self._since + (FLIGHT_SECONDS if in_flight else IDLE_SECONDS)
        return now >= self.deadline

    def wanted(self, in_flight: bool) -> int:
        """So many waiting proposals are enough; no need to ask before."""
        return ENOUGH if in_flight else int(SHARE * self._expected) + 1

    def proposed(self, count: int) -> None:
        """What waited became entries. Expectations rise at once and sink slowly."""
        self._since = None
        self._expected = max(float(count), (self._expected + count) / 2)
