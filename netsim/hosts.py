"""A simulated host: `raftkv.host.Host` by structure, and a place where programs run and die.

Owns the tasks of its programs, life by life. A program is an async function that runs until it is
cancelled; one that raises one of `exit_on` has ended its process (the machine stays up), one that
raises anything else ends the whole simulation, for that is a bug.

Clocks: `now()` can be offset and run at another rate. Deadlines (`trio.current_time`) are the
same for all hosts; to imitate a host whose timers run fast or slow, give its component other
intervals (raftkv's `tick_seconds`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from netsim.determinism import run_queue
from netsim.disk import DiskSettings, LifeDisk, SimDisk
from netsim.fabric import Fabric
from netsim.life import CURRENT_LIFE, Life, Machine
from netsim.net import SimNet

if TYPE_CHECKING:
    from netsim.world import World

__all__ = ["SimHost"]

T = TypeVar("T")


class SimHost:
    """One machine of a World. Made by `World.host`."""

    def __init__(self, world: World, fabric: Fabric, name: str, window: int) -> None:
        self._world = world
        self._fabric = fabric
        self._machine = Machine(name)
        self._disks: dict[str, SimDisk] = {}
        self.disk_settings = DiskSettings()
        self.clock_offset = 0.0
        """Seconds that `now()` is ahead of the world."""
        self.clock_rate = 1.0
        """Seconds of `now()` in a second of the world."""
        self.exit_on: tuple[type[Exception], ...] = ()
        """Errors with which a program ends its process, as a supervisor would see it."""
        self.life = Life(self._machine, 1, [])
        self.net = SimNet(fabric, self, window)
        self.rng: random.Random = fabric.random(f"host {name}")
        fabric.machines[name] = self._machine

    def __repr__(self) -> str:
        return f"<SimHost {self.life}>"

    # The Host protocol

    @property
    def name(self) -> str:
        return self._machine.name

    def disk(self, directory: str) -> LifeDisk:
        """The directory for the life that asks (from outside the simulation: the present one)."""
        life = CURRENT_LIFE.get()
        if life is None or life.machine is not self._machine:
            life = self.life
        return self.platter(directory).opened_by(life)

    def now(self) -> float:
        elapsed = self._world.time()
        return self._world.epoch + elapsed * self.clock_rate + self.clock_offset

    # For scenarios

    def platter(self, directory: str) -> SimDisk:
        """The directory apart from any life: where faults are set."""
        disk = self._disks.get(directory)
        if disk is None:
            disk = self._disks[directory] = SimDisk(
                self._fabric, self._machine, f"{self.name}:{directory}", self.disk_settings
            )
        return disk

    def platters(self) -> list[SimDisk]:
        """All directories used so far, oldest first."""
        return list(self._disks.values())

    def neighbour(self, name: str) -> SimHost:
        return self._world.hosts[name]

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.life.alive

    @property
    def paused(self) -> bool:
        return self._machine.paused

    def start(self, program: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run a program in this host's present life, and again after each restart."""
        if not self.life.alive:
            raise RuntimeError(f"{self.name} is down: restart it first")
        self.life.programs.append((program, args))
        self._spawn(self.life, program, args)

    async def enter(self, manager: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Open a component in this host's life and return its handle once it is ready.

        `manager` is called again after each restart (then nobody waits for it).
        """
        ready = trio.Event()
        handles: list[T] = []

        async def program() -> None:
            async with manager() as handle:
                handles.append(handle)
                ready.set()
                await trio.sleep_forever()

        self.start(program)
        await ready.wait()
        return handles[0]

    def _spawn(
        self, life: Life, program: Callable[..., Awaitable[object]], args: tuple[Any, ...]
    ) -> None:
        async def run() -> None:
            CURRENT_LIFE.set(life)
            await program(*args)

        if life.nursery is not None:
            life.nursery.start_soon(run, name=f"{life} {program!r}")

    async def live(self, life: Life) -> None:
        """Run a life to its end. The world's nursery runs this."""
        try:
            async with trio.open_nursery() as nursery:
                life.nursery = nursery
                life.scope = nursery.cancel_scope
                if not life.alive:
                    nursery.cancel_scope.cancel()
                for program, args in list(life.programs):
                    self._spawn(life, program, args)
                await trio.sleep_forever()
        except BaseExceptionGroup as group:
            self._judge(life, group)
        finally:
            life.nursery = None

    def _judge(self, life: Life, group: BaseExceptionGroup[BaseException]) -> None:
        """What an error that ended all programs of a life means."""
        cancelled, rest = group.split((trio.Cancelled, GeneratorExit))
        if rest is None:
            raise group
        if not life.alive:
            # A killed process has no last words: these come from `finally` blocks of the dead.
            _, serious = rest.split(Exception)
        elif self.exit_on:
            exits, serious = rest.split(self.exit_on)
            if serious is None and exits is not None:
                self._world.note(f"{life} exits {_names(exits)}")
                self._world.crash(self, power=False)
        else:
            serious = rest
        if serious is not None:
            raise group
        if cancelled is not None:
            raise cancelled

    # Pausing

    def freeze_runnable(self) -> None:
        """Take this host's tasks out of the scheduler's queue."""
        queue = run_queue()
        for task in list(queue):
            if task.context.get(CURRENT_LIFE) is self.life:
                queue.remove(task)
                self.life.frozen.append(task)

    def thaw(self) -> None:
        """Put them back."""
        frozen, self.life.frozen = self.life.frozen, []
        run_queue().extend(frozen)


def _names(group: BaseExceptionGroup[BaseException]) -> str:
    names: list[str] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            names.append(_names(error))
        else:
            names.append(type(error).__name__)
    return "+".join(names)


class Freezer(trio.abc.Instrument):
    """Keeps the tasks of paused hosts from running."""

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        life = task.context.get(CURRENT_LIFE)
        if life is not None and life.machine.paused and life.alive:
            queue = run_queue()
            assert queue[-1] is task, "trio's run queue is not what the simulator knows"
            queue.pop()
            life.frozen.append(task)
