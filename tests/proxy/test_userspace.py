"""Relays on loopback addresses, as an ordinary user has them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from k8slite.proxy.relay import Balancer
from k8slite.proxy.table import Endpoint, ServicePort, Table
from k8slite.proxy.userspace import UserspaceWriter, open_userspace_writer
from raftkv.os_host import TcpNet
from tests.ports import free_port

SERVICE_IP = "127.96.77.1"
NODE_IP = "127.100.77.1"


def table(*endpoints: Endpoint, port: int, protocol: str = "TCP", **more: int) -> Table:
    entry = ServicePort(
        namespace="default",
        name="web",
        port_name="http",
        protocol=protocol,
        cluster_ip=SERVICE_IP,
        port=port,
        endpoints=endpoints,
        node_port=more.get("node_port", 0),
        affinity_seconds=more.get("affinity_seconds", 0),
    )
    return {(entry.key, protocol): entry}


@asynccontextmanager
async def open_echo(ip: str, name: bytes) -> AsyncIterator[Endpoint]:
    """A server that greets with its name, echoes, and says goodbye at the end of the input."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await stream.send_all(name)
                async for data in stream:
                    await stream.send_all(data)
                await stream.send_all(b"bye")
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=ip)
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield Endpoint(ip, port)
        nursery.cancel_scope.cancel()


async def ask(ip: str, port: int) -> bytes:
    async with await trio.open_tcp_stream(ip, port) as stream:
        return bytes(await stream.receive_some(100))


@pytest.fixture
async def writer() -> AsyncIterator[UserspaceWriter]:
    async with open_userspace_writer([NODE_IP], TcpNet()) as writer:
        yield writer


async def test_turns_and_both_directions(writer: UserspaceWriter) -> None:
    port = free_port(SERVICE_IP)
    async with open_echo("127.244.77.2", b"one") as one, open_echo("127.244.77.3", b"two") as two:
        assert await writer.sync(table(one, two, port=port)) == []
        assert [await ask(SERVICE_IP, port) for _ in range(4)] == [b"one", b"two"] * 2
        async with await trio.open_tcp_stream(SERVICE_IP, port) as stream:
            assert await stream.receive_some(3) == b"one"
            blob = bytes(range(256)) * 2000
            got = bytearray()

            async def read() -> None:
                async for data in stream:
                    got.extend(data)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await stream.send_all(blob)
                await stream.send_eof()
            assert bytes(got) == blob + b"bye"


async def test_refusing_endpoint_is_passed_over(writer: UserspaceWriter) -> None:
    port = free_port(SERVICE_IP)
    dead = Endpoint("127.244.77.9", free_port("127.244.77.9"))
    async with open_echo("127.244.77.2", b"one") as one:
        await writer.sync(table(dead, one, port=port))
        assert [await ask(SERVICE_IP, port) for _ in range(3)] == [b"one"] * 3
        await writer.sync(table(dead, port=port))
        with pytest.raises((trio.BrokenResourceError, OSError)):
            await ask(SERVICE_IP, port)


async def test_without_endpoints_nobody_listens(writer: UserspaceWriter) -> None:
    port = free_port(SERVICE_IP)
    async with open_echo("127.244.77.2", b"one") as one:
        await writer.sync(table(one, port=port))
        async with await trio.open_tcp_stream(SERVICE_IP, port) as stream:
            assert await stream.receive_some(3) == b"one"
            await writer.sync(table(port=port))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError):
                await ask(SERVICE_IP, port)
            await stream.send_all(b"still there")
            assert await stream.receive_some(100) == b"still there"
        await writer.sync(table(one, port=port))
        assert await ask(SERVICE_IP, port) == b"one"
        await writer.cleanup()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError):
            await ask(SERVICE_IP, port)


async def test_node_port_and_two_proxies_on_one_address(writer: UserspaceWriter) -> None:
    port, node_port = free_port(SERVICE_IP), free_port(NODE_IP)
    async with open_echo("127.244.77.2", b"one") as one:
        rules = table(one, port=port, node_port=node_port)
        assert await writer.sync(rules) == []
        assert await ask(NODE_IP, node_port) == b"one"
        async with open_userspace_writer(["127.100.77.2"], TcpNet()) as second:
            assert await second.sync(rules) == []
            assert await ask("127.100.77.2", node_port) == b"one"
            assert [await ask(SERVICE_IP, port) for _ in range(4)] == [b"one"] * 4
        assert [await ask(SERVICE_IP, port) for _ in range(4)] == [b"one"] * 4


async def test_a_port_that_is_taken_is_reported_and_tried_again(writer: UserspaceWriter) -> None:
    async with open_echo("127.244.77.2", b"one") as one:
        with socket.socket() as taken:
            taken.bind((SERVICE_IP, 0))
            taken.listen()
            port = taken.getsockname()[1]
            (problem,) = await writer.sync(table(one, port=port))
            assert problem.startswith(f"default/web:http can't be served at {SERVICE_IP}:{port}")
        assert await writer.sync(table(one, port=port)) == []
        assert await ask(SERVICE_IP, port) == b"one"


async def test_sctp_is_reported(writer: UserspaceWriter) -> None:
    problems = await writer.sync(table(Endpoint("127.244.77.2", 1), port=9, protocol="SCTP"))
    assert problems == ["default/web:http: SCTP is not relayed"]


async def test_udp(writer: UserspaceWriter) -> None:
    port = free_port(SERVICE_IP, socket.SOCK_DGRAM)
    server = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await server.bind(("127.244.77.2", 0))
    endpoint = Endpoint("127.244.77.2", server.getsockname()[1])
    assert await writer.sync(table(endpoint, port=port, protocol="UDP")) == []

    async def serve() -> None:
        while True:
            data, peer = await server.recvfrom(1000)
            await server.sendto(b"answer to " + data, peer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        for _ in range(2):
            client = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with client:
                await client.connect((SERVICE_IP, port))
                for question in (b"a", b"b"):
                    await client.send(question)
                    assert await client.recv(100) == b"answer to " + question
        nursery.cancel_scope.cancel()
    server.close()


def test_affinity() -> None:
    one, two = Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 1)
    balancer = Balancer()
    balancer.set([one, two], 60)
    assert balancer.candidates("me", 0.0) == [one, two]
    balancer.served("me", one, 0.0)
    assert balancer.candidates("me", 30.0) == [one, two]
    assert balancer.candidates("you", 30.0)[0] == one
    assert balancer.candidates("me", 59.0)[0] == one
    assert {balancer.candidates("me", 61.0)[0] for _ in range(2)} == {one, two}
    balancer.served("me", one, 70.0)
    balancer.set([two], 60)
    assert balancer.candidates("me", 71.0) == [two]
