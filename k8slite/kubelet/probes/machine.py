"""When a probe's successes and failures count. Pure.

A `ProbeState` is fed with outcomes and gives a verdict: unknown before the first, then the last
result that was seen often enough in a row (`successThreshold`, `failureThreshold`). Liveness
starts as success and readiness as failure; startup decides once.
"""

from __future__ import annotations

import enum
from typing import Any

import attrs

from k8slite.api.meta import Obj


class ProbeKind(enum.Enum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"

    @property
    def field(self) -> str:
        return f"{self.value}Probe"


@attrs.frozen
class ProbeSpec:
    """A probe with all defaults filled in; times in seconds."""

    kind: ProbeKind
    handler: Obj
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int
    grace_seconds: int | None

    @classmethod
    def of(cls, kind: ProbeKind, probe: Obj) -> ProbeSpec:
        def number(key: str, default: int) -> Any:
            return probe.get(key) or default

        return cls(
            kind=kind,
            handler=probe,
            initial_delay=number("initialDelaySeconds", 0),
            period=number("periodSeconds", 10),
            timeout=number("timeoutSeconds", 1),
            success_threshold=number("successThreshold", 1),
            failure_threshold=number("failureThreshold", 3),
            grace_seconds=probe.get("terminationGracePeriodSeconds"),
        )


@attrs.frozen
class ProbeState:
    """`verdict` is what counts; `last` and `run` are the latest outcome and how often in a row."""

    verdict: bool | None
    last: bool | None = None
    run: int = 0

    @classmethod
    def initial(cls, kind: ProbeKind) -> ProbeState:
        return cls({ProbeKind.LIVENESS: True, ProbeKind.READINESS: False}.get(kind))


def observe(spec: ProbeSpec, state: ProbeState, success: bool) -> ProbeState:
    """The state after one more outcome."""
    run = state.run + 1 if state.last is success else 1
    needed = spec.success_threshold if success else spec.failure_threshold
    verdict = success if run >= needed else state.verdict
    return ProbeState(verdict, success, run)


def is_over(spec: ProbeSpec, state: ProbeState) -> bool:
    """Whether this container need not be probed again: a startup probe decides once, and a failed
    liveness probe holds until the container has been restarted."""
    if spec.kind is ProbeKind.STARTUP:
        return state.verdict is not None
    return spec.kind is ProbeKind.LIVENESS and state.verdict is False
