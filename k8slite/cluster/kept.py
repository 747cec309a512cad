"""One component and its life so far, as the supervisor keeps it.

A component that dies is started again: at once if it had run a while, else after longer and longer
pauses. One that chaos killed stays dead for a stated time.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any, Final

import attrs
import trio

from k8slite.cluster.layout import Layout
from k8slite.cluster.link import Spawned
from k8slite.cluster.spec import NODE_ROLES, ClusterSpec, Component, Place

__all__ = ["Kept", "how_ended", "next_pause", "request_of", "too_few"]

PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0
SETTLED_SECONDS: Final = 30.0
"""A component that has run for so long starts at once when it dies."""
STATUS_SECONDS: Final = 1.0


@attrs.define(eq=False)
class Kept:
    """Times are trio's."""

    component: Component
    netns: str = ""
    process: Spawned | None = None
    ready: bool = False
    paused: bool = False
    started_at: float = 0.0
    restarts: int = 0
    given_up: bool = False
    """It has died so often while the cluster started that nobody waits for it."""
    last_code: int | None = None
    last_words: str = ""
    """The last error that its log names from its last life; empty when it was killed."""
    dead_until: float | None = None
    """Chaos keeps it dead until then."""
    pause: float = 0.0
    """How long it waits before it is started again, unless chaos says so."""
    starts_at: float = 0.0
    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set when `dead_until` is: whoever waits looks again."""
    became_ready: trio.Event = attrs.field(factory=trio.Event)
    settled: trio.Event = attrs.field(factory=trio.Event)
    """It has been ready, or was given up."""

    @property
    def name(self) -> str:
        return self.component.name

    @property
    def state(self) -> str:
        if self.process is None:
            if self.dead_until is not None:
                return "killed"
            return "crashed" if self.last_code is not None else "waiting"
        if self.paused:
            return "paused"
        return "running" if self.ready else "starting"

    def starts_in(self, now: float) -> float | None:
        """Seconds until a dead one is started; None for one that runs or waits for others."""
        if self.process is not None or self.state == "waiting":
            return None
        until = self.starts_at if self.dead_until is None else self.dead_until
        return max(0.0, until - now)

    def set_dead_until(self, when: float | None) -> None:
        """Chaos: stay dead until then; None: start at once if it is dead."""
        self.dead_until = when
        if when is None:
            self.starts_at = 0.0
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    async def wait_start(self) -> None:
        """While it has to stay dead."""
        self.starts_at = trio.current_time() + self.pause
        while True:
            until = self.starts_at if self.dead_until is None else self.dead_until
            if until <= trio.current_time():
                self.dead_until = None
                return
            with trio.move_on_at(until):
                await self.changed.wait()

    def is_ready(self) -> None:
        """It says so itself."""
        self.ready, self.given_up = True, False
        self.became_ready.set()
        self.settled.set()

    def give_up(self) -> None:
        self.given_up = True
        self.settled.set()

    def ended(self, code: int | None, words: str) -> None:
        """Its process is gone."""
        self.pause = next_pause(self.pause, trio.current_time() - self.started_at)
        self.process, self.ready, self.paused = None, False, False
        self.last_code, self.last_words = code, words
        self.restarts += 1

    async def status(self) -> dict[str, Any]:
        """What it tells of itself; {} when it does not answer in time."""
        if self.process is None or not self.ready or self.paused:
            return {}
        with trio.move_on_after(STATUS_SECONDS):
            return await self.process.status()
        return {}


def next_pause(pause: float, lived: float) -> float:
    """How long to wait before the next start of what has lived for so long."""
    if lived >= SETTLED_SECONDS:
        return 0.0
    return min(max(PAUSE_SECONDS_MIN, pause * 2), PAUSE_SECONDS_MAX)


def how_ended(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "has not ended"
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def too_few(kept: Sequence[Kept]) -> Kept | None:
    """One that was given up, when its role cannot do without it: a store without a majority, a
    node, the last one of the others."""
    lost = [k for k in kept if k.given_up]
    if not lost:
        return None
    for role in dict.fromkeys(k.component.role for k in lost):
        there = [k for k in kept if k.component.role == role]
        bearable = len(there) - 1
        if role == "raftkv":
            bearable = (len(there) - 1) // 2
        elif role in NODE_ROLES:
            bearable = 0
        of_role = [k for k in lost if k.component.role == role]
        if len(of_role) > bearable:
            return of_role[0]
    return None


def request_of(kept: Kept, spec: ClusterSpec, place: Place, layout: Layout) -> dict[str, Any]:
    """What the zygote is asked; `components.open_component` reads it."""
    return {
        "role": kept.component.role,
        "name": kept.name,
        "number": kept.component.number,
        "log": str(layout.log(kept.name)),
        "root": str(layout.root),
        "spec": spec.to_json(),
        "place": place.to_json(),
        "netns": kept.netns,
    }
