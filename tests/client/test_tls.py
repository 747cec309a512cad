"""TLS to the apiserver: the name or address is checked, and the client shows who it is."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest
import trio

from k8slite.api.kinds import PODS
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.errors import Unreachable
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.certificates import Authority
from tests.client.world import (
    MemoryHost,
    MemoryNet,
    Reply,
    Request,
    json_reply,
    open_fake_server,
)

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}


class TlsNet(MemoryNet):
    """The network in memory, whose servers speak TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    def wrap(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        return trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)


async def answer(request: Request) -> Reply:
    return json_reply(POD)


async def test_requests_go_over_tls_in_memory(tmp_path: Path) -> None:
    tls = Authority(tmp_path, addresses=("10.0.0.1",)).tls("test")
    host = MemoryHost(net=TlsNet(tls.server))
    address = Address("10.0.0.1", 6443)
    config = ClientConfig(endpoints=(address,), tls=tls.client)
    async with open_fake_server(host.net, address, answer) as seen:
        async with open_client(config, host) as client:
            for _ in range(3):
                assert await client.get(PODS, "p", "n") == POD
    assert len(seen) == 3
    assert host.net.opened == 1


async def test_requests_go_over_tls_on_real_sockets(tmp_path: Path) -> None:
    tls = Authority(tmp_path).tls("test")
    host = OsHost("here")
    listener = await host.net.listen(Address("127.0.0.1", 0))

    async def serve() -> None:
        while True:
            stream = trio.SSLStream(
                await listener.accept(), tls.server, server_side=True, https_compatible=True
            )
            nursery.start_soon(one, stream)

    async def one(stream: trio.SSLStream[trio.abc.Stream]) -> None:
        body = b'{"kind":"Pod"}'
        try:
            while await stream.receive_some(65536):
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                await stream.send_all(head + body)
        finally:
            await trio.aclose_forcefully(stream)

    config = ClientConfig(endpoints=(listener.address,), tls=tls.client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with open_client(config, host) as client:
            for _ in range(3):
                assert await client.get(PODS, "p", "n") == {"kind": "Pod"}
        nursery.cancel_scope.cancel()
    await listener.aclose()


async def test_a_certificate_for_another_address_is_refused(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    tls = Authority(tmp_path, addresses=("10.9.9.9",)).tls("test")
    host = MemoryHost(net=TlsNet(tls.server))
    address = Address("10.0.0.1", 6443)

    config = ClientConfig(endpoints=(address,), tls=tls.client)
    listener = await host.net.listen(address)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            while True:
                stream = await listener.accept()
                nursery.start_soon(refuse, stream)

        async def refuse(stream: trio.abc.Stream) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                assert await stream.receive_some(1) == b"", "no request may arrive"
            await trio.aclose_forcefully(stream)

        nursery.start_soon(serve)
        async with open_client(config, host) as client:
            with pytest.raises(Unreachable, match="no apiserver can be reached"):
                await client.get(PODS, "p", "n")
        nursery.cancel_scope.cancel()
