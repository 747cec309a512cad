"""A simulated host's network: `open_stream` and `listen` as `raftkv.host.Net` has them.

Fulfils that protocol by structure: an address is any named tuple of (host, port), and a listener's
address is of the type that was asked for. A connection attempt takes a round trip; a blocked link
or a dark machine swallows it (tried again after 1, 2, 4... seconds, then ETIMEDOUT), a port where
nobody listens refuses it.
"""

from __future__ import annotations

import collections
import errno
import os
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

import trio

from netsim.fabric import Fabric
from netsim.life import CURRENT_LIFE, Life
from netsim.streams import SimStream, connect_streams

if TYPE_CHECKING:
    from netsim.hosts import SimHost

__all__ = ["SimListener", "SimNet"]

BACKLOG_MAX = 1024
"""Connections that wait to be accepted; further attempts are swallowed, as by Linux."""
SYN_TRIES = 7
FIRST_FREE_PORT = 32768
_ANY = ("", "0.0.0.0", "::")


class AddressLike(Protocol):
    """What `raftkv.host.Address` has."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


A = TypeVar("A", bound=AddressLike)


def _fail(number: int, what: str) -> NoReturn:
    raise OSError(number, f"{os.strerror(number)}: {what}")


class SimListener(Generic[A]):
    """A bound server socket of a simulated host."""

    def __init__(self, life: Life, key: tuple[str, int], address: A) -> None:
        self._life = life
        self._key = key
        self._address = address
        self._waiting: collections.deque[SimStream] = collections.deque()
        self._acceptors: collections.deque[trio.lowlevel.Task] = collections.deque()
        self._closed = False

    @property
    def address(self) -> A:
        return self._address

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this listener was closed")
            if self._waiting:
                return self._waiting.popleft()
            task = trio.lowlevel.current_task()
            self._acceptors.append(task)

            def abort(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._acceptors.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Free the port; connections that nobody accepted are reset."""
        if not self._closed:
            self._closed = True
            self._life.listeners.pop(self._key, None)
            while self._waiting:
                self._waiting.popleft().end_with_process()
            while self._acceptors:
                trio.lowlevel.reschedule(self._acceptors.popleft())

    @property
    def full(self) -> bool:
        return len(self._waiting) >= BACKLOG_MAX

    def arrive(self, stream: SimStream) -> None:
        """A connection is there."""
        self._waiting.append(stream)
        if self._acceptors:
            trio.lowlevel.reschedule(self._acceptors.popleft())


class SimNet:
    """The network as one host sees it."""

    def __init__(self, fabric: Fabric, host: SimHost, window: int) -> None:
        self._fabric = fabric
        self._host = host
        self._window = window
        self._next_port = FIRST_FREE_PORT

    def _life(self) -> Life:
        """The life the caller belongs to; code from outside the simulation acts for the present."""
        life = CURRENT_LIFE.get()
        if life is None or life.machine is not self._host.life.machine:
            life = self._host.life
        return life

    async def listen(self, address: A) -> SimListener[A]:
        await trio.lowlevel.checkpoint()
        life = self._life()
        if not life.alive:
            _fail(errno.ENETDOWN, f"{life} has ended")
        where = "*"
        if address.host not in _ANY:
            owner, where = self._fabric.resolve(address.host, life.machine.name)
            if owner != life.machine.name:
                _fail(
                    errno.EADDRNOTAVAIL, f"{address.host} is not an address of {life.machine.name}"
                )
        port = address.port
        while port == 0:
            self._next_port += 1
            if not self._taken(life, where, self._next_port):
                port = self._next_port
        if self._taken(life, where, port):
            _fail(errno.EADDRINUSE, f"{address.host} port {port} on {life.machine.name}")
        bound: Any = type(address)
        listener: SimListener[A] = SimListener(life, (where, port), bound(address.host, port))
        life.listeners[where, port] = listener
        self._fabric.note(f"{life} listens {where} {port}")
        return listener

    @staticmethod
    def _taken(life: Life, where: str, port: int) -> bool:
        """Whether a socket bound there would clash with one that exists."""
        if where != "*":
            return (where, port) in life.listeners or ("*", port) in life.listeners
        return any(taken == port for _, taken in life.listeners)

    async def open_stream(self, address: AddressLike) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        life = self._life()
        fabric = self._fabric
        source = life.machine.name
        target, where = fabric.resolve(address.host, source)
        there, back = fabric.link(source, target), fabric.link(target, source)
        pause = 1.0
        for _ in range(SYN_TRIES):
            began = fabric.now()
            await trio.sleep(there.transit(began, 0))
            if not life.alive:
                break
            machine = fabric.machines[target]
            if not there.blocked and machine.powered:
                listener = self._find(target, where, address.port)
                if listener is None or not listener.full:
                    await trio.sleep(back.transit(fabric.now(), 0))
                    if not back.blocked and life.alive:
                        return self._connect(life, target, where, address)
            await trio.sleep_until(began + pause)
            pause *= 2
        if not life.alive:
            _fail(errno.ENETDOWN, f"{life} has ended")
        _fail(errno.ETIMEDOUT, f"{address.host} port {address.port} from {source}")

    def _connect(self, life: Life, target: str, where: str, address: AddressLike) -> SimStream:
        listener = self._find(target, where, address.port)
        if listener is None:
            self._fabric.note(f"{life} refused {address.host} {address.port}")
            raise ConnectionRefusedError(
                errno.ECONNREFUSED,
                f"Connection refused: {address.host} port {address.port}",
            )
        near, far = connect_streams(self._fabric, life, listener._life, self._window)
        self._fabric.note(f"{near!r} opened to {where} {address.port}")
        listener.arrive(far)
        return near

    def _find(self, target: str, where: str, port: int) -> SimListener[Any] | None:
        life = self._host.neighbour(target).life
        if not life.alive:
            return None
        listeners = life.listeners
        return listeners.get((where, port)) or listeners.get(("*", port))
