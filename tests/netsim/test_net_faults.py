"""What a simulated network does to connections, claim by claim."""

from __future__ import annotations

import errno
import math

import pytest
import trio

from netsim.link import LinkSettings
from netsim.world import World, run
from tests.netsim.storm import At

FAST = LinkSettings(latency=0.01, jitter=0.0)


async def pair(world: World) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """A connection from host a to host b."""
    listener = await world.host("b").net.listen(At("b", 0))
    client = await world.host("a").net.open_stream(listener.address)
    return client, await listener.accept()


def test_bytes_take_the_latency_of_the_link() -> None:
    async def scenario(world: World) -> float:
        client, server = await pair(world)
        with world.delay("a", "b", 1.0):
            began = world.time()
            await client.send_all(b"x")
            await server.receive_some()
            return world.time() - began

    assert run(1, scenario, links=FAST).result == pytest.approx(1.01)


def test_loss_costs_retransmissions_and_loses_nothing() -> None:
    async def scenario(world: World) -> float:
        client, server = await pair(world)
        began = world.time()
        with world.drop("a", "b", 0.5):
            for number in range(20):
                await client.send_all(bytes([number]))
        got = b""
        while len(got) < 20:
            got += await server.receive_some()
        assert got == bytes(range(20))
        return world.time() - began

    assert run(1, scenario, links=FAST).result > 0.2


def test_bandwidth_makes_bytes_queue() -> None:
    async def scenario(world: World) -> float:
        client, server = await pair(world)
        began = world.time()
        await client.send_all(bytes(100_000))
        received = 0
        while received < 100_000:
            received += len(await server.receive_some())
        return world.time() - began

    narrow = LinkSettings(latency=0.0, jitter=0.0, bandwidth=10_000)
    assert run(1, scenario, links=narrow).result == pytest.approx(10.0)


def test_narrow_links_are_as_narrow_as_the_narrowest_fault() -> None:
    async def scenario(world: World) -> list[float]:
        client, server = await pair(world)
        took = []

        async def send() -> None:
            began = world.time()
            await client.send_all(bytes(10_000))
            received = 0
            while received < 10_000:
                received += len(await server.receive_some())
            took.append(world.time() - began)

        with world.narrow("a", "b", 10_000):
            await send()
            with world.narrow("a", "b", 5_000):
                await send()
            await send()
        await send()
        return took

    wires = LinkSettings(latency=0.0, jitter=0.0)
    assert run(1, scenario, links=wires).result == pytest.approx([1.0, 2.0, 1.0, 0.0])


def test_a_full_backlog_drops_and_sends_again() -> None:
    async def scenario(world: World) -> float:
        client, server = await pair(world)
        for _ in range(3):
            await client.send_all(bytes(1000))
        received = 0
        while received < 3000:
            received += len(await server.receive_some())
        return world.time()

    narrow = LinkSettings(latency=0.0, jitter=0.0, bandwidth=10_000, backlog=500)
    assert run(1, scenario, links=narrow).result > 0.3


def test_a_slow_reader_holds_its_sender_back() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        sent = 0
        with trio.move_on_after(100):
            while True:
                await client.send_all(bytes(1000))
                sent += 1000
        assert world.window - 1000 <= sent <= world.window
        await server.receive_some(2000)
        with trio.fail_after(10):
            await client.send_all(bytes(1000))

    run(1, scenario)


def test_a_partition_holds_bytes_back_until_it_heals() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        with world.partition("a", "b"):
            await client.send_all(b"x")
            with trio.move_on_after(5) as scope:
                await server.receive_some()
            assert scope.cancelled_caught
        with trio.fail_after(10):
            assert await server.receive_some() == b"x"

    run(1, scenario)


def test_a_one_way_partition_is_one_way() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        with world.one_way("a", "b"):
            await server.send_all(b"back")
            with trio.fail_after(1):
                assert await client.receive_some() == b"back"
            await client.send_all(b"there")
            with trio.move_on_after(1) as scope:
                await server.receive_some()
            assert scope.cancelled_caught

    run(1, scenario)


def test_faults_add_up() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        with world.isolate("a"):
            with world.partition(["a"], ["b"]):
                await client.send_all(b"x")
            with trio.move_on_after(3) as scope:
                await server.receive_some()
            assert scope.cancelled_caught
        assert await server.receive_some() == b"x"

    run(1, scenario)


def test_a_connection_without_progress_is_given_up() -> None:
    async def scenario(world: World) -> float:
        client, _ = await pair(world)
        with world.partition("a", "b"):
            await client.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError, match="timed out"):
                await client.receive_some()
        return world.time()

    assert 900 < run(1, scenario).result < 1200


def test_nobody_listens_refuses_and_a_wall_times_out() -> None:
    async def scenario(world: World) -> None:
        a, b = world.host("a"), world.host("b")
        with pytest.raises(ConnectionRefusedError):
            await a.net.open_stream(At("b", 80))
        await b.net.listen(At("", 80))
        with world.partition("a", "b"):
            with pytest.raises(TimeoutError) as caught:
                await a.net.open_stream(At("b", 80))
        assert caught.value.errno == errno.ETIMEDOUT
        assert 100 < world.time() < 200
        world.crash(b)
        with trio.move_on_after(20) as scope:
            await a.net.open_stream(At("b", 80))
        assert scope.cancelled_caught

    run(1, scenario)


def test_a_connection_attempt_outlives_a_short_partition() -> None:
    async def scenario(world: World) -> float:
        a, b = world.host("a"), world.host("b")
        await b.net.listen(At("b", 80))
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                await a.net.open_stream(At("b", 80))

            with world.one_way("b", "a"):
                nursery.start_soon(connect)
                await trio.sleep(2)
        return world.time()

    assert 2 < run(1, scenario).result < 4


def test_a_killed_process_resets_its_connections_and_refuses_new_ones() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        await server.send_all(b"last words")
        world.crash("b", power=False)
        assert await client.receive_some() == b"last words"
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")
        with pytest.raises(ConnectionRefusedError):
            await world.host("a").net.open_stream(At("b", 80))

    run(1, scenario)


def test_a_machine_without_power_is_silent_until_it_is_back() -> None:
    async def scenario(world: World) -> None:
        client, _ = await pair(world)
        world.crash("b")
        await client.send_all(b"x")
        with trio.move_on_after(30) as scope:
            await client.receive_some()
        assert scope.cancelled_caught
        await world.restart("b")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(60):
            await client.receive_some()

    run(1, scenario)


def test_the_dead_send_nothing() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        world.crash("b")
        with pytest.raises(trio.ClosedResourceError):
            await server.send_all(b"from the grave")
        with trio.move_on_after(30) as scope:
            await client.receive_some()
        assert scope.cancelled_caught

    run(1, scenario)


def test_a_reset_may_cut_a_message_in_half() -> None:
    async def scenario(world: World) -> int:
        client, server = await pair(world)
        await client.send_all(bytes(10_000))
        world.reset_connections("a", "b")
        received = 0
        broken = False
        while not broken:
            try:
                received += len(await server.receive_some())
            except trio.BrokenResourceError:
                broken = True
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")
        return received

    lengths = {run(seed, scenario).result for seed in range(30)}
    assert len(lengths) > 5
    assert any(0 < length < 10_000 for length in lengths)


def test_closing_with_unread_bytes_resets() -> None:
    async def scenario(world: World) -> None:
        client, server = await pair(world)
        await client.send_all(b"unread")
        await trio.sleep(1)
        await server.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()

    run(1, scenario)


def test_names_addresses_and_ports() -> None:
    async def scenario(world: World) -> None:
        a, b = world.host("a", "10.0.0.1"), world.host("b", "10.0.0.2", "10.0.0.3")
        one = await b.net.listen(At("10.0.0.2", 80))
        other = await b.net.listen(At("10.0.0.3", 80))
        loopback = await b.net.listen(At("127.0.0.1", 80))
        assert one.address == At("10.0.0.2", 80)
        with pytest.raises(OSError) as taken:
            await b.net.listen(At("", 80))
        assert taken.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError) as foreign:
            await b.net.listen(At("10.0.0.1", 80))
        assert foreign.value.errno == errno.EADDRNOTAVAIL
        await a.net.open_stream(At("10.0.0.3", 80))
        with trio.fail_after(1):
            await other.accept()
        with pytest.raises(ConnectionRefusedError):
            await a.net.open_stream(At("127.0.0.1", 80))
        await b.net.open_stream(At("localhost", 80))
        with trio.fail_after(1):
            await loopback.accept()
        free = await b.net.listen(At("", 0))
        await a.net.open_stream(At("b", free.address.port))
        with pytest.raises(ValueError, match="belongs to b"):
            world.host("a", "10.0.0.2")

    run(1, scenario)


def test_infinite_bandwidth_is_the_default() -> None:
    assert LinkSettings().bandwidth == math.inf
