"""Simulated streams are streams: trio's own conformance suite, which real TCP passes too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import check_half_closeable_stream

from netsim.world import World, run
from raftkv.host import Address, Net
from raftkv.os_host import TcpNet

Pair = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


async def connect(net: Net, server_net: Net, where: Address) -> Pair:
    listener = await server_net.listen(where)
    try:
        client = await net.open_stream(Address(where.host, listener.address.port))
        server = await listener.accept()
    finally:
        await listener.aclose()
    assert isinstance(client, trio.abc.HalfCloseableStream)
    assert isinstance(server, trio.abc.HalfCloseableStream)
    return client, server


async def conform(net: Net, server_net: Net, where: Address) -> None:
    async def pair() -> Pair:
        return await connect(net, server_net, where)

    async def clogged() -> Pair:
        client, server = await pair()
        # Fill both ways: the window holds this much and nobody reads.
        for stream in (client, server):
            await _clog(stream)
        return client, server

    simulated = not isinstance(net, TcpNet)
    await check_half_closeable_stream(pair, clogged if simulated else None)


async def _clog(stream: trio.abc.Stream) -> None:
    while True:
        with trio.move_on_after(0) as scope:
            await trio.lowlevel.checkpoint()
        full = False
        with trio.move_on_after(0.001) as scope:
            await stream.send_all(b"x" * 4096)
        full = scope.cancelled_caught
        if full:
            return


@pytest.mark.parametrize("seed", range(5))
def test_simulated_streams_pass_the_suite(seed: int) -> None:
    async def scenario(world: World) -> None:
        net: Net = world.host("a").net
        server_net: Net = world.host("b").net
        await conform(net, server_net, Address("b", 0))

    run(seed, scenario)


async def test_tcp_streams_pass_the_suite() -> None:
    net = TcpNet()
    await conform(net, net, Address("127.0.0.1", 0))


@asynccontextmanager
async def _tcp() -> AsyncIterator[tuple[Net, Net, Address]]:
    net = TcpNet()
    yield net, net, Address("127.0.0.1", 0)


async def _net_rules(net: Net, server_net: Net, where: Address) -> None:
    listener = await server_net.listen(where)
    bound = Address(where.host, listener.address.port)
    assert bound.port > 0
    with pytest.raises(OSError):
        await server_net.listen(bound)
    async with await net.open_stream(bound) as client, await listener.accept() as server:
        await client.send_all(b"hello")
        assert await server.receive_some(100) == b"hello"
        await listener.aclose()
        await listener.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        await server.send_all(b"still here")
        assert await client.receive_some(100) == b"still here"
    with pytest.raises(OSError):
        await net.open_stream(bound)
    again = await server_net.listen(bound)
    await again.aclose()
    with pytest.raises(OSError):
        await net.open_stream(Address("no-such-host.invalid", 1))


def test_a_simulated_net_keeps_the_rules_of_nets() -> None:
    async def scenario(world: World) -> None:
        await _net_rules(world.host("a").net, world.host("b").net, Address("b", 0))

    run(1, scenario)


async def test_tcp_keeps_the_rules_of_nets() -> None:
    async with _tcp() as (net, server_net, where):
        await _net_rules(net, server_net, where)


async def test_closing_a_tcp_listener_wakes_who_accepts() -> None:
    await _close_wakes(TcpNet(), Address("127.0.0.1", 0))


def test_closing_a_simulated_listener_wakes_who_accepts() -> None:
    async def scenario(world: World) -> None:
        await _close_wakes(world.host("a").net, Address("", 0))

    run(1, scenario)


async def _close_wakes(net: Net, where: Address) -> None:
    listener = await net.listen(where)

    async def accept() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()
