"""A world of hosts on a simulated network, under one seed and a virtual clock.

    def test_it() -> None:
        outcome = run(7, scenario)

    async def scenario(world: World) -> None:
        a, b = world.host("a"), world.host("b")
        a.start(serve, a)
        with world.partition("a", "b"):
            ...
        world.crash("a")
        await world.restart("a")

Owns the hosts, their lives, and the pump that makes the calendar happen. Everything random comes
from the seed; the trace and its hash tell two runs apart. `run` gives the deterministic scheduler;
`open_world` works in any trio run, whose clock and scheduling are then its own business.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import trio

from netsim.determinism import deterministic_run
from netsim.fabric import Fabric
from netsim.faults import Faults
from netsim.hosts import Freezer, SimHost
from netsim.life import Life
from netsim.link import LinkSettings
from netsim.streams import SimStream
from netsim.trace import Trace

__all__ = ["Outcome", "World", "open_world", "run"]

T = TypeVar("T")

EPOCH = 1_767_225_600.0
"""2026-01-01T00:00:00Z, when every world begins."""
WINDOW_BYTES = 131_072
DEFAULT_LINKS = LinkSettings()
ENDING_LINES = 30


class World(Faults):
    """Hosts, links and faults. Hosts are named by their name or by themselves."""

    def __init__(
        self, seed: int, links: LinkSettings = DEFAULT_LINKS, *, keep_trace: bool = False
    ) -> None:
        self.seed = seed
        self.epoch = EPOCH
        self.window = WINDOW_BYTES
        self.trace = Trace(keep=keep_trace)
        self.hosts: dict[str, SimHost] = {}
        self._began = trio.current_time()
        self.fabric = Fabric(seed, links, trio.current_time, self.trace)
        self._rng = self.fabric.random("world")
        self._nursery: trio.Nursery | None = None
        self._freezer: Freezer | None = None

    def time(self) -> float:
        """Seconds since the world began."""
        return trio.current_time() - self._began

    def rng(self, purpose: str) -> random.Random:
        """A random stream of its own for a part of the scenario."""
        return self.fabric.random(purpose)

    def note(self, line: str) -> None:
        """Write a line into the trace."""
        self.fabric.note(line)

    @property
    def trace_hash(self) -> str:
        return self.trace.hash()

    def host(self, name: str, *addresses: str) -> SimHost:
        """The host of that name, made at the first call, with its further addresses."""
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = SimHost(self, self.fabric, name, self.window)
            self.fabric.own(name, name)
            self._live(host)
        for address in addresses:
            self.fabric.own(address, name)
        return host

    def find(self, host: str | SimHost) -> SimHost:
        return self.hosts[host] if isinstance(host, str) else host

    # Life and death

    def crash(self, host: str | SimHost, *, power: bool = True) -> None:
        """End the host's process now. With `power`, its machine goes dark: unsynced bytes are lost
        and its peers hear nothing. Without, the kernel stays up: files are whole and connections
        are reset."""
        host = self.find(host)
        machine = host._machine
        life = host.life
        if machine.paused:
            self.resume(host)
        if life.alive:
            self.note(f"crash {life} power={power}")
            life.alive = False
            if life.scope is not None:
                life.scope.cancel()
        for listener in list(life.listeners.values()):
            listener.close()
        for stream in list(life.streams):
            if power:
                stream.end_with_machine(self._rng)
            else:
                stream.end_with_process()
        if power and machine.powered:
            machine.powered = False
            for disk in host.platters():
                disk.lose_power()

    async def restart(self, host: str | SimHost, *, programs: bool = True) -> None:
        """Start a new life, with the programs of the old one. A running host is left alone."""
        host = self.find(host)
        await trio.lowlevel.checkpoint()
        if host.life.alive:
            return
        machine = host._machine
        if not machine.powered:
            machine.powered = True
            machine.boots += 1
        previous = host.life
        host.life = Life(machine, previous.number + 1, previous.programs if programs else [])
        self.note(f"restart {host.life}")
        self._live(host)

    def _live(self, host: SimHost) -> None:
        assert self._nursery is not None, "hosts are made inside open_world"
        self._nursery.start_soon(host.live, host.life, name=f"life of {host.life}")

    def pause(self, host: str | SimHost) -> None:
        """Stop all tasks of the host, as SIGSTOP does. Its kernel goes on."""
        host = self.find(host)
        if not host.paused and host.alive:
            self.note(f"pause {host.life}")
            host._machine.paused = True
            if self._freezer is None:
                self._freezer = Freezer()
                trio.lowlevel.add_instrument(self._freezer)
            host.freeze_runnable()

    def resume(self, host: str | SimHost) -> None:
        """Let a paused host run; all deadlines that passed meanwhile are overdue at once."""
        host = self.find(host)
        if host.paused:
            self.note(f"resume {host.life}")
            host._machine.paused = False
            host.thaw()

    def reset_connections(self, a: str | SimHost, b: str | SimHost) -> None:
        """Reset all connections between two hosts; half-sent data may arrive before the end."""
        first, second = self.find(a), self.find(b)
        self.note(f"reset {first.name} {second.name}")
        streams: list[SimStream] = [
            stream for stream in list(first.life.streams) if stream.hosts[1] == second.name
        ]
        for stream in streams:
            stream.break_off(self._rng)

    # The pump

    async def pump(self) -> None:
        """Make the calendar happen. The world's nursery runs this."""
        timeline = self.fabric.timeline
        while True:
            when = timeline.next_at()
            with trio.CancelScope(deadline=when) as scope:

                def earlier(when: float, scope: trio.CancelScope = scope) -> None:
                    scope.deadline = when

                timeline.on_earlier = earlier
                await trio.sleep_forever()
            timeline.on_earlier = None
            timeline.run_due(trio.current_time())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run hosts and calendar while inside; at the end every host dies where it stands."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.pump)
            try:
                yield
            finally:
                for host in list(self.hosts.values()):
                    if host.paused:
                        self.resume(host)
                    host.life.alive = False
                if self._freezer is not None:
                    trio.lowlevel.remove_instrument(self._freezer)
                nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_world(
    seed: int, links: LinkSettings = DEFAULT_LINKS, *, keep_trace: bool = False
) -> AsyncIterator[World]:
    """A running world."""
    world = World(seed, links, keep_trace=keep_trace)
    with _explained(world):
        async with world.running():
            yield world


@contextlib.contextmanager
def _explained(world: World) -> Iterator[None]:
    """Let an error that leaves the world say where it happened; a lone one comes out bare."""
    try:
        yield
    except BaseException as raised:
        error = raised
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        lines = [f"netsim: seed {world.seed}, {world.time():.6f} virtual seconds; the last lines:"]
        lines += world.trace.lines[-ENDING_LINES:]
        error.add_note("\n    ".join(lines))
        if error is raised:
            raise
        raise error from None


class Outcome(NamedTuple, Generic[T]):
    """What a run came to."""

    result: T
    trace_hash: str


def run(
    seed: int,
    main: Callable[..., Awaitable[T]],
    *args: Any,
    links: LinkSettings = DEFAULT_LINKS,
    trace_to: list[str] | None = None,
) -> Outcome[T]:
    """Run `main(world, *args)` in a new world; its result and the hash of its trace.

    `trace_to` gets every line of the trace, whatever happens. What `main` raises carries the seed,
    the virtual time and the last lines of the trace as notes.
    """

    async def body() -> Outcome[T]:
        async with open_world(seed, links, keep_trace=trace_to is not None) as world:
            try:
                result = await main(world, *args)
                return Outcome(result, world.trace_hash)
            finally:
                if trace_to is not None:
                    trace_to.extend(world.trace.lines)
        raise AssertionError("a world swallows nothing")

    return deterministic_run(seed, body)
