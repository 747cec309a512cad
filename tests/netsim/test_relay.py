"""The relay, tried on simulated sockets, where time is virtual; once on real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from netsim.relay import Relay, open_relay
from netsim.world import World, run
from raftkv.host import Address
from raftkv.os_host import TcpNet

Ends = tuple[Relay, trio.abc.Stream, trio.abc.Stream]


@asynccontextmanager
async def relayed(net: Any, where: str) -> AsyncIterator[Ends]:
    """A connection from host a to host b through a relay."""
    listener = await net.listen(Address(where, 0))
    async with open_relay(1, net) as relay:
        address = await relay.route("a", "b", listener.address, listen=where)
        async with await net.open_stream(address) as client, await listener.accept() as server:
            yield relay, client, server
    await listener.aclose()


async def _echo(client: trio.abc.Stream, server: trio.abc.Stream) -> None:
    await client.send_all(b"there")
    assert await server.receive_some(100) == b"there"
    await server.send_all(b"back")
    assert await client.receive_some(100) == b"back"


async def test_bytes_pass_between_real_sockets() -> None:
    async with relayed(TcpNet(), "127.0.0.1") as (relay, client, server):
        assert relay.connections == 1
        await _echo(client, server)
        await client.aclose()
        assert await server.receive_some(100) == b""


def test_faults_of_links() -> None:
    async def scenario(world: World) -> None:
        async with relayed(world.host("machine").net, "127.0.0.1") as (relay, client, server):
            await _echo(client, server)
            with relay.one_way("a", "b"):
                await server.send_all(b"back")
                assert await client.receive_some(100) == b"back"
                await client.send_all(b"held")
                with trio.move_on_after(60) as scope:
                    await server.receive_some(100)
                assert scope.cancelled_caught
            assert await server.receive_some(100) == b"held"
            began = world.time()
            with relay.delay("b", "a", 3.0):
                await server.send_all(b"late")
                assert await client.receive_some(100) == b"late"
            assert world.time() - began == pytest.approx(3.0, abs=0.1)
            with relay.isolate("b"):
                await client.send_all(b"x")
                with trio.move_on_after(60) as scope:
                    await server.receive_some(100)
                assert scope.cancelled_caught
            assert await server.receive_some(100) == b"x"
            relay.reset_connections("b", "a")
            assert await server.receive_some(100) == b""
            await server.send_all(b"to nobody")
            await trio.sleep(1)
            with pytest.raises(trio.BrokenResourceError):
                await server.send_all(b"x")
            assert relay.connections == 0

    run(1, scenario)


def test_a_slow_reader_pushes_back_through_the_relay() -> None:
    async def scenario(world: World) -> None:
        async with relayed(world.host("machine").net, "127.0.0.1") as (_, client, server):
            sent = 0
            with trio.move_on_after(60):
                while True:
                    await client.send_all(bytes(50_000))
                    sent += 50_000
            assert sent < 10_000_000
            received = 0
            while received < sent:
                received += len(await server.receive_some())

    run(1, scenario)


def test_a_target_that_is_not_there_ends_the_connection() -> None:
    async def scenario(world: World) -> None:
        net: Any = world.host("machine").net
        async with open_relay(1, net) as relay:
            address = await relay.route("a", "b", ("127.0.0.1", 9))
            stream = await net.open_stream(address)
            assert await stream.receive_some() == b""

    run(1, scenario)
