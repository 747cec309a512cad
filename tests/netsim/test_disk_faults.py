"""What a simulated disk keeps, and what it loses, when the machine goes dark or the disk is ill."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio

from netsim.disk import LifeDisk
from netsim.hosts import SimHost
from netsim.world import World, run

SYNCED = b"s" * 700
UNSYNCED = b"u" * 2000


def contents_after_power_loss(
    prepare: Callable[[LifeDisk], Awaitable[None]], seeds: range = range(60)
) -> list[dict[str, bytes]]:
    """What the disk holds after `prepare` and a power loss, over many seeds."""

    async def scenario(world: World) -> dict[str, bytes]:
        host = world.host("a")
        await prepare(host.disk("data"))
        world.crash(host)
        await world.restart(host)
        disk = host.disk("data")
        return {name: disk.read(name) for name in disk.names()}

    return [run(seed, scenario).result for seed in seeds]


def test_synced_bytes_survive_and_unsynced_ones_survive_in_part() -> None:
    async def prepare(disk: LifeDisk) -> None:
        file = disk.open_append("log")
        file.append(SYNCED)
        await file.sync()
        await disk.sync_directory()
        file.append(UNSYNCED)

    lengths = set()
    zeros = 0
    for disk in contents_after_power_loss(prepare):
        content = disk["log"]
        assert content.startswith(SYNCED)
        rest = content[len(SYNCED) :]
        torn = rest.rstrip(b"\0")
        assert UNSYNCED.startswith(torn)
        zeros += torn != rest
        lengths.add(len(rest))
    assert 0 in lengths
    assert len(UNSYNCED) in lengths
    assert len(lengths) > 10
    assert zeros > 0


def test_a_name_is_durable_only_after_a_directory_sync() -> None:
    async def prepare(disk: LifeDisk) -> None:
        await disk.replace("state", b"old")
        file = disk.open_append("new")
        file.append(b"new")
        await file.sync()
        disk.rename("new", "state")

    outcomes = {tuple(sorted(disk.items())) for disk in contents_after_power_loss(prepare)}
    assert outcomes == {
        (("state", b"old"),),
        (("new", b"new"), ("state", b"old")),
        (("state", b"new"),),
    }


def test_a_truncation_is_durable_only_after_a_sync() -> None:
    async def prepare(disk: LifeDisk) -> None:
        file = disk.open_append("log")
        file.append(b"0123456789")
        await file.sync()
        await disk.sync_directory()
        file.truncate(4)

    assert {disk["log"] for disk in contents_after_power_loss(prepare)} == {b"0123456789", b"0123"}


def test_replace_leaves_the_old_file_or_the_new_one() -> None:
    async def scenario(world: World) -> bytes:
        host = world.host("a")
        await host.disk("data").replace("state", b"old" * 500)

        async def rewrite() -> None:
            await host.disk("data").replace("state", b"new" * 500)

        host.start(rewrite)
        await trio.sleep(world.rng("moment").random() * 0.008)
        world.crash(host)
        await world.restart(host, programs=False)
        return host.disk("data").read("state")

    found = {run(seed, scenario).result for seed in range(40)}
    assert found == {b"old" * 500, b"new" * 500}


def test_a_killed_process_loses_nothing() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        host.disk("data").open_append("log").append(UNSYNCED)
        world.crash(host, power=False)
        await world.restart(host)
        assert host.disk("data").read("log") == UNSYNCED

    run(1, scenario)


def test_the_dead_write_nothing() -> None:
    async def haunt(host: SimHost) -> None:
        disk = host.disk("data")
        file = disk.open_append("log")
        file.append(b"alive")
        try:
            await trio.sleep_forever()
        finally:
            file.append(b"dead")
            file.truncate(0)
            disk.delete("log")
            host.disk("data").rename("log", "ghost")
            with pytest.raises(OSError):
                host.disk("data").open_append("other")

    async def scenario(world: World) -> None:
        host = world.host("a")
        host.start(haunt, host)
        await trio.sleep(1)
        world.crash(host, power=False)
        await world.restart(host, programs=False)
        await trio.sleep(1)
        assert host.disk("data").names() == ["log"]
        assert host.disk("data").read("log") == b"alive"

    run(1, scenario)


def test_after_a_failed_sync_the_data_is_read_and_never_durable() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        file = host.disk("data").open_append("log")
        await host.disk("data").sync_directory()
        file.append(b"x")
        with world.sync_errors(host):
            with pytest.raises(OSError) as caught:
                await file.sync()
        assert caught.value.errno == errno.EIO
        await file.sync()
        assert host.disk("data").read("log") == b"x"
        world.crash(host)
        await world.restart(host)
        assert host.disk("data").read("log") == b""

    for seed in range(10):
        run(seed, scenario)


def test_a_full_disk_writes_what_fits() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        file = host.disk("data").open_append("log")
        file.append(b"12345")
        with world.full_disk(host, 8):
            with pytest.raises(OSError) as caught:
                file.append(b"67890")
        assert caught.value.errno == errno.ENOSPC
        assert host.disk("data").read("log") == b"12345678"
        file.append(b"9")

    run(1, scenario)


def test_a_disk_is_full_as_long_as_one_fault_says_so() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        file = host.disk("data").open_append("log")
        file.append(b"1")
        outer, inner = world.full_disk(host), world.full_disk(host)
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        with pytest.raises(OSError):
            file.append(b"2")
        inner.__exit__(None, None, None)
        file.append(b"3")

    run(1, scenario)


def test_a_misdirected_write_lands_on_another_sector() -> None:
    async def scenario(world: World) -> bytes:
        host = world.host("a")
        file = host.disk("data").open_append("log")
        file.append(b"".join(bytes([number]) * 512 for number in range(4)))
        assert host.platter("data").misdirect("log")
        return host.disk("data").read("log")

    for seed in range(10):
        content = run(seed, scenario).result
        sectors = [content[place : place + 512] for place in range(0, 2048, 512)]
        assert len(set(sectors)) == 3
        assert sum(sector != bytes([n]) * 512 for n, sector in enumerate(sectors)) == 1


def test_a_hung_disk_answers_when_it_comes_back() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        file = host.disk("data").open_append("log")
        async with trio.open_nursery() as nursery:
            with world.hung_disk(host):
                nursery.start_soon(file.sync)
                await trio.sleep(100)
                assert host.platter("data").syncs == 0
        assert host.platter("data").syncs == 1

    run(1, scenario)


def test_a_slow_disk_is_slow() -> None:
    async def scenario(world: World) -> float:
        host = world.host("a")
        file = host.disk("data").open_append("log")
        with world.slow_disk(host, 5.0):
            await file.sync()
        return world.time()

    assert 5.0 < run(1, scenario).result < 5.1


def test_a_bit_flips_at_rest() -> None:
    async def scenario(world: World) -> None:
        host = world.host("a")
        await host.disk("data").replace("f", bytes(10))
        bit = host.platter("data").flip_bit("f")
        content = host.disk("data").read("f")
        assert content[bit // 8] == 1 << bit % 8
        assert sum(content) == content[bit // 8]

    run(1, scenario)
