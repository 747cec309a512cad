"""A disk that hangs, fails or is full: no answer is given that it does not stand behind."""

from __future__ import annotations

import errno
from pathlib import Path

import attrs
import pytest
import trio

from raftkv.client import open_client
from raftkv.errors import NotApplied, StorageFailed, UnknownOutcome, WalDamaged
from raftkv.host import Disk, File
from raftkv.os_host import OsDisk, OsHost
from raftkv.server import ServerConfig, open_server
from raftkv.server.main import ended_by
from tests.server.support import Cluster, configs, put_surely


@attrs.define
class Fault:
    """What the disk does next."""

    hang: bool = False
    append_error: OSError | None = None
    sync_error: OSError | None = None


class FaultyFile:
    def __init__(self, file: File, fault: Fault) -> None:
        self._file = file
        self._fault = fault

    @property
    def size(self) -> int:
        return self._file.size

    def append(self, data: bytes | bytearray | memoryview) -> None:
        if self._fault.append_error is not None:
            raise self._fault.append_error
        self._file.append(data)

    def begin_sync(self) -> None:
        """Begins when it is waited for."""

    async def sync(self) -> None:
        while self._fault.hang:
            await trio.sleep(0.01)
        if self._fault.sync_error is not None:
            raise self._fault.sync_error
        await trio.lowlevel.checkpoint()

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def close(self) -> None:
        self._file.close()


class FaultyDisk(OsDisk):
    def __init__(self, directory: str, fault: Fault) -> None:
        super().__init__(directory)
        self._fault = fault

    def open_append(self, name: str) -> File:
        return FaultyFile(super().open_append(name), self._fault)


class FaultyHost(OsHost):
    def __init__(self, fault: Fault) -> None:
        super().__init__("faulty")
        self._fault = fault

    def disk(self, directory: str) -> Disk:
        return FaultyDisk(directory, self._fault)


@pytest.mark.parametrize("where", ["append", "sync"])
async def test_error_of_the_disk_ends_the_member(tmp_path: Path, where: str) -> None:
    """Never retried, never answered: after a failed fsync nobody knows what is on the disk."""
    fault = Fault()
    config = attrs.evolve(configs(tmp_path, 1)[1], fsync=True)
    outcomes: list[str] = []
    with pytest.raises(StorageFailed, match="No space left"):
        await put_on_failing_disk(config, fault, where, outcomes)
    assert outcomes in ([], ["unknown"])


async def put_on_failing_disk(
    config: ServerConfig, fault: Fault, where: str, outcomes: list[str]
) -> None:
    host = OsHost()
    async with open_server(config, FaultyHost(fault)) as server:
        async with open_client([server.client_address], host.net, rng=host.rng) as kv:
            await kv.put(b"k", b"1")
            error = OSError(errno.ENOSPC, "No space left on device")
            if where == "append":
                fault.append_error = error
            else:
                fault.sync_error = error
            try:
                await kv.put(b"k", b"2")
                outcomes.append("answered")
            except UnknownOutcome:
                outcomes.append("unknown")


async def test_leader_with_a_hung_disk_makes_way(tmp_path: Path) -> None:
    fault = Fault()
    async with trio.open_nursery() as nursery:
        cluster = Cluster(configs(tmp_path, 3, campaign_at_start=False), nursery)
        config = attrs.evolve(cluster.configs[1], campaign_at_start=True, fsync=True)
        async with open_server(config, FaultyHost(fault)) as hung:
            with trio.fail_after(20):
                await cluster.start(2)
                await cluster.start(3)
                host = OsHost()
                async with open_client(cluster.endpoints, host.net, rng=host.rng) as kv:
                    await kv.put(b"k", b"1")
                    if not hung.is_leader:
                        await kv.move_leader(1)
                        while not hung.is_leader:
                            await trio.sleep(0.01)
                    fault.hang = True
                    with pytest.raises((UnknownOutcome, trio.TooSlowError, NotApplied)):
                        with trio.fail_after(1):
                            await kv.put(b"k", b"2")
                    new = await cluster.wait_leader()
                    assert new.id != 1
                    assert hung.status()["role"] != "leader"
                    await put_surely(kv, b"k")
                    fault.hang = False
                    revision = await kv.current_revision()
                    while hung.status()["revision"] < revision:
                        await trio.sleep(0.01)
                    assert hung.status()["digest"] == new.status()["digest"]
        nursery.cancel_scope.cancel()


async def test_damaged_log_is_refused_with_its_place(tmp_path: Path) -> None:
    config = attrs.evolve(configs(tmp_path, 1)[1], fsync=True)
    host = OsHost()
    async with open_server(config, host) as server:
        async with open_client([server.client_address], host.net, rng=host.rng) as kv:
            for number in range(20):
                await kv.put(b"k", b"%d" % number * 100)
    segment, size = flip_a_bit(Path(config.data_dir))
    with pytest.raises(WalDamaged) as caught:
        await open_server(config, host).__aenter__()
    assert caught.value.file == segment
    assert 0 < caught.value.offset < size


def flip_a_bit(directory: Path) -> tuple[str, int]:
    """In the middle of the only segment; its name and size."""
    (segment,) = directory.glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0x40
    segment.write_bytes(data)
    return segment.name, len(data)


def failed(words: str, cause: BaseException | None = None) -> StorageFailed:
    error = StorageFailed(words)
    error.__cause__ = cause
    return error


def test_a_disk_that_fails_in_several_tasks_is_told_once() -> None:
    first = failed("a snapshot can't be written", OSError(errno.ENOSPC, "full"))
    later = failed("the log is not usable: a snapshot can't be written")
    assert ended_by(ExceptionGroup("", [ExceptionGroup("", [later]), first])) is first
    assert ended_by(ExceptionGroup("", [later])) is later


def test_other_errors_beside_it_are_not_hidden() -> None:
    group = ExceptionGroup("", [failed("full"), ZeroDivisionError()])
    assert ended_by(group) is group
