"""Hosts: the protocol they fulfil, lives that end and begin, pauses, clocks, errors."""

from __future__ import annotations

import pytest
import trio

from netsim.hosts import SimHost
from netsim.world import EPOCH, World, open_world, run
from raftkv.host import Address, Disk, File, Host, Listener, Net


def test_a_simulated_host_is_a_host() -> None:
    async def scenario(world: World) -> None:
        host: Host = world.host("a")
        assert isinstance(host, Host)
        assert host.name == "a"
        net: Net = host.net
        disk: Disk = host.disk("data")
        file: File = disk.open_append("f")
        listener: Listener = await net.listen(Address("", 0))
        assert isinstance(listener.address, Address)
        assert file.size == 0

    run(1, scenario)


def test_randomness_comes_from_the_seed() -> None:
    async def scenario(world: World) -> tuple[float, float]:
        return world.host("a").rng.random(), world.host("b").rng.random()

    first, second = run(1, scenario).result, run(2, scenario).result
    assert first == run(1, scenario).result
    assert len({*first, *second}) == 4


def test_clocks_may_be_off_and_drift() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        assert host.now() == EPOCH
        host.clock_offset = 10.0
        host.clock_rate = 1.1
        await trio.sleep(100)
        assert host.now() == pytest.approx(EPOCH + 120)

    run(1, scenario)


async def _count(host: SimHost, ticks: list[str]) -> None:
    while True:
        ticks.append(str(host.life))
        await trio.sleep(1)


def test_a_crash_ends_a_life_and_a_restart_runs_its_programs_again() -> None:
    async def scenario(world: World) -> list[str]:
        host = world.host("a")
        ticks: list[str] = []
        host.start(_count, host, ticks)
        await trio.sleep(1.5)
        world.crash("a")
        assert not host.alive
        await trio.sleep(10)
        await world.restart("a")
        await world.restart("a")
        await trio.sleep(0.5)
        world.crash("a")
        with pytest.raises(RuntimeError, match="down"):
            host.start(_count, host, ticks)
        return ticks

    assert run(1, scenario).result == ["a#1", "a#1", "a#2"]


def test_a_paused_host_stands_still_and_its_deadlines_pass() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        ticks: list[str] = []
        host.start(_count, host, ticks)
        listener = await host.net.listen(Address("", 80))
        await trio.sleep(2.5)
        world.pause(host)
        stream = await world.host("b").net.open_stream(Address("a", 80))
        await stream.send_all(b"the kernel takes it")
        await trio.sleep(10)
        assert len(ticks) == 3
        world.resume(host)
        await trio.sleep(0.1)
        assert len(ticks) == 4
        assert await (await listener.accept()).receive_some() == b"the kernel takes it"
        await trio.sleep(2)
        assert len(ticks) == 6

    run(1, scenario)


def test_a_paused_host_can_crash() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        ticks: list[str] = []
        host.start(_count, host, ticks)
        await trio.sleep(0.5)
        world.pause(host)
        await trio.sleep(5)
        world.crash(host)
        await world.restart(host)
        await trio.sleep(0.5)
        assert ticks == ["a#1", "a#2"]
        world.pause(host)

    run(1, scenario)


def test_errors_of_the_dead_are_ignored() -> None:
    async def scenario(world: World) -> None:
        async def program() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("last words")

        world.host("a").start(program)
        await trio.sleep(1)
        world.crash("a")
        await trio.sleep(1)

    run(1, scenario)


def test_an_error_of_the_living_ends_the_world_and_names_the_seed() -> None:
    async def scenario(world: World) -> None:
        async def program() -> None:
            await trio.sleep(1)
            raise AssertionError("broken invariant")

        world.host("a").start(program)
        await trio.sleep(10)

    with pytest.raises(AssertionError, match="broken invariant") as caught:
        run(42, scenario)
    assert "seed 42, 1.000000 virtual seconds" in "".join(caught.value.__notes__)


def test_an_expected_exit_ends_the_process_alone() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        host.exit_on = (OSError,)
        ticks: list[str] = []

        async def program() -> None:
            await trio.sleep(1.5)
            raise OSError("disk")

        host.start(program)
        host.start(_count, host, ticks)
        await trio.sleep(10)
        assert not host.alive
        assert ticks == ["a#1", "a#1"]

    run(1, scenario)


def test_entering_a_component_waits_until_it_is_ready() -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    opened = 0

    @asynccontextmanager
    async def open_component() -> AsyncIterator[str]:
        nonlocal opened
        await trio.sleep(3)
        opened += 1
        yield "ready"

    async def scenario(world: World) -> None:
        host = world.host("a")
        assert await host.enter(open_component) == "ready"
        assert world.time() == 3
        world.crash(host)
        await world.restart(host)
        await trio.sleep(5)
        assert opened == 2

    run(1, scenario)


async def test_a_world_works_under_a_test_s_own_clock(autojump_clock: object) -> None:
    async with open_world(3) as world:
        listener = await world.host("b").net.listen(Address("b", 1))
        await trio.sleep(100)
        client = await world.host("a").net.open_stream(Address("b", 1))
        await client.send_all(b"x")
        assert await (await listener.accept()).receive_some() == b"x"
        assert 100 < world.time() < 101
