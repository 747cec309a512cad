"""Kubernetes' own timings, and the short ones of `up --fast`. Pure.

One row a number, so that both can be compared at a glance. In seconds.
"""

from __future__ import annotations

import attrs

__all__ = ["DEFAULT", "FAST", "Timings", "timings_of"]


@attrs.frozen(kw_only=True)
class Timings:
    """`election` is (lease, renew, retry) of schedulers and controller managers."""

    election: tuple[float, float, float] = (15.0, 10.0, 2.0)
    node_lease_renew: float = 10.0
    node_lease: int = 40
    node_status: float = 10.0
    node_stats: float = 10.0
    """How often a kubelet looks what containers use."""
    node_monitor: float = 5.0
    node_grace: float = 40.0
    node_startup_grace: float = 60.0
    toleration: int = 300
    """How long pods stay on a node that is not ready or not reachable."""
    request_patience: float = 30.0
    """How long a component waits for an answer before it tries another apiserver."""
    watch_silence: float = 90.0
    bookmark: float = 60.0
    endpoint: float = 15.0
    """How soon an apiserver that is not heard of leaves the endpoints of `kubernetes`."""
    chaos_dead: float = 20.0
    """How long what chaos has killed stays dead, so that others must take over."""
    raft_tick: float = 0.1


DEFAULT = Timings()
FAST = Timings(
    election=(2.0, 1.4, 0.4),
    node_lease_renew=1.0,
    node_lease=4,
    node_status=2.0,
    node_stats=2.0,
    node_monitor=0.5,
    node_grace=4.0,
    node_startup_grace=6.0,
    toleration=5,
    request_patience=5.0,
    watch_silence=12.0,
    bookmark=5.0,
    endpoint=4.0,
    chaos_dead=5.0,
    raft_tick=0.05,
)


def timings_of(fast: bool) -> Timings:
    return FAST if fast else DEFAULT
