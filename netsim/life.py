"""A machine, and the lives of the process on it.

A crash ends a life. Its tasks are cancelled, so their `finally` blocks still run, which those of a
killed process never do; hence every stream, listener and file belongs to one life, and those of an
ended life reach nothing any more. Which life a task belongs to is in its context.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import trio

    from netsim.net import SimListener
    from netsim.streams import SimStream

__all__ = ["CURRENT_LIFE", "Life", "Machine", "Program"]

Program = tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]


class Machine:
    """The kernel's part of a host: it answers, or not, whatever the process on it does."""

    __slots__ = ("boots", "name", "paused", "powered")

    def __init__(self, name: str) -> None:
        self.name = name
        self.boots = 1
        self.powered = True
        self.paused = False


class Life:
    """One incarnation of the process on a machine."""

    __slots__ = (
        "alive",
        "boot",
        "frozen",
        "listeners",
        "machine",
        "number",
        "nursery",
        "programs",
        "scope",
        "streams",
    )

    def __init__(self, machine: Machine, number: int, programs: list[Program]) -> None:
        self.machine = machine
        self.number = number
        self.boot = machine.boots
        self.alive = True
        self.programs = programs
        self.streams: dict[SimStream, None] = {}
        self.listeners: dict[tuple[str, int], SimListener[Any]] = {}
        self.scope: trio.CancelScope | None = None
        self.nursery: trio.Nursery | None = None
        self.frozen: list[trio.lowlevel.Task] = []

    def __str__(self) -> str:
        return f"{self.machine.name}#{self.number}"

    @property
    def kernel_alive(self) -> bool:
        """Whether the machine still runs the boot in which this life began."""
        return self.machine.powered and self.machine.boots == self.boot


CURRENT_LIFE: contextvars.ContextVar[Life | None] = contextvars.ContextVar(
    "netsim_current_life", default=None
)
