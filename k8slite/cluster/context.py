"""What every component is opened from, and what it is once it is open."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from k8slite.cluster.layout import Layout
from k8slite.cluster.spec import ClusterSpec, Component, Place
from k8slite.cluster.timings import Timings, timings_of
from raftkv.host import Address, Listener, Tls
from raftkv.os_host import OsHost, TcpListener, TcpNet, load_tls

if TYPE_CHECKING:
    from k8slite.client.client import ClientConfig

__all__ = ["Context", "InheritingNet", "Running"]

CONNECTIONS: Final = 16


async def _stay() -> None:
    await trio.lowlevel.checkpoint()


@attrs.frozen
class Running:
    """An open component: its status as a flat map, and what it does before it is stopped."""

    status: Callable[[], dict[str, Any]]
    leave: Callable[[], Awaitable[None]] = _stay


@attrs.frozen
class Context:
    """Everything a component is opened from."""

    component: Component
    spec: ClusterSpec
    place: Place
    layout: Layout
    host: OsHost

    @property
    def timings(self) -> Timings:
        return timings_of(self.spec.fast)

    def pem(self, file: str) -> tuple[str, str]:
        return str(self.layout.pki / f"{file}.crt"), str(self.layout.pki / f"{file}.key")

    def tls(self, authority: str, file: str, *, require_client: bool = True) -> Tls:
        certificate, key = self.pem(file)
        ca = str(self.layout.pki / f"{authority}.crt")
        return load_tls(ca=ca, certificate=certificate, key=key, require_client=require_client)

    def client(self, file: str) -> ClientConfig:
        """How this component reaches the apiservers, as the identity of that file."""
        from k8slite.client.client import ClientConfig

        numbers = list(range(1, self.spec.control_planes + 1))
        turn = (self.component.number - 1) % len(numbers)  # each begins with another one
        return ClientConfig(
            endpoints=tuple(
                self.place.apiserver(number) for number in numbers[turn:] + numbers[:turn]
            ),
            tls=self.tls("ca", file).client,
            user_agent=f"k8slite-{self.component.role}",
            connections_max=CONNECTIONS,
            patience_seconds=self.timings.request_patience,
            silence_seconds=self.timings.watch_silence,
        )


class InheritingNet(TcpNet):
    """A net on which some addresses are listened on already, by descriptors from the supervisor.

    Apiservers share those: each connection is taken by one that runs, and while one is stopped or
    dead the others take all.
    """

    def __init__(self, inherited: dict[Address, int]) -> None:
        super().__init__()
        self._inherited = inherited

    async def listen(self, address: Address) -> Listener:
        fd = self._inherited.get(address)
        if fd is None:
            return await super().listen(address)
        return TcpListener(trio.socket.from_stdlib_socket(socket.socket(fileno=fd)))
