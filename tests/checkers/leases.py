"""Leases keep their bounds: none ends before its time to live, none lives on for ever.

A grant or renewal takes effect somewhere between its call and its return; so a lease that was last
renewed by a request called at `c` may not be gone before `c + ttl`, and one last renewed by a
request returned at `r` should be gone by `r + ttl + slack`, where nothing hindered its end.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LeaseLife", "LeaseViolation", "check_lease"]


class LeaseViolation(AssertionError):
    """A lease ended early, or too late."""


@dataclass
class LeaseLife:
    """What one client knows of its lease. Times in seconds."""

    lease: int
    ttl: float
    called: float
    """Call of the last grant or renewal that succeeded."""
    attempted: float
    """Return of the last grant or renewal that may have succeeded; infinity if none answered."""
    revoked: bool = False
    gone: float | None = None
    """When somebody first saw that it was gone."""

    def renewed(self, called: float, returned: float) -> None:
        self.called = max(self.called, called)
        self.attempted = max(self.attempted, returned)


def check_lease(life: LeaseLife, *, now: float, slack: float) -> None:
    """Raise LeaseViolation if the lease is gone too early, or still there too late."""
    if life.gone is not None:
        if not life.revoked and life.gone < life.called + life.ttl:
            raise LeaseViolation(
                f"lease {life.lease} was gone at {life.gone:.3f}, "
                f"before {life.called + life.ttl:.3f}"
            )
    elif now > life.attempted + life.ttl + slack:
        raise LeaseViolation(
            f"lease {life.lease} is still there at {now:.3f}, "
            f"after {life.attempted + life.ttl + slack:.3f}"
        )
