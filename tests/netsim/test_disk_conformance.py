"""The rules of `raftkv.host.Disk`, kept by the simulated disk and by the operating system's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from netsim.world import World, run
from raftkv.host import Disk
from raftkv.os_host import OsDisk

Case = Callable[[Disk], Awaitable[None]]


async def names_are_sorted(disk: Disk) -> None:
    assert disk.names() == []
    for name in ("b", "a", "c"):
        disk.open_append(name).close()
    assert disk.names() == ["a", "b", "c"]


async def appended_bytes_are_read_back(disk: Disk) -> None:
    file = disk.open_append("log")
    assert file.size == 0
    file.append(b"one")
    file.append(bytearray(b"two"))
    file.append(memoryview(b"three"))
    assert file.size == 11
    assert disk.read("log") == b"onetwothree"
    await file.sync()
    assert disk.read("log") == b"onetwothree"
    file.close()


async def opening_again_appends(disk: Disk) -> None:
    file = disk.open_append("log")
    file.append(b"one")
    file.close()
    again = disk.open_append("log")
    assert again.size == 3
    again.append(b"two")
    assert disk.read("log") == b"onetwo"
    again.close()


async def truncating_cuts_and_appending_goes_on_from_there(disk: Disk) -> None:
    file = disk.open_append("log")
    file.append(b"0123456789")
    await file.sync()
    file.truncate(4)
    assert file.size == 4
    file.append(b"x")
    await file.sync()
    assert disk.read("log") == b"0123x"
    file.close()


async def a_missing_file_is_not_found(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError):
        disk.read("none")
    with pytest.raises(FileNotFoundError):
        disk.rename("none", "other")
    disk.delete("none")


async def replacing_is_whole(disk: Disk) -> None:
    await disk.replace("state", b"first, and longer")
    await disk.replace("state", b"second")
    assert disk.read("state") == b"second"
    assert disk.names() == ["state"]


async def renaming_moves_and_overwrites(disk: Disk) -> None:
    await disk.replace("a", b"A")
    await disk.replace("b", b"B")
    disk.rename("a", "b")
    await disk.sync_directory()
    assert disk.names() == ["b"]
    assert disk.read("b") == b"A"


async def an_open_file_survives_its_name(disk: Disk) -> None:
    file = disk.open_append("log")
    disk.delete("log")
    file.append(b"into the void")
    await file.sync()
    assert file.size == 13
    assert disk.names() == []
    file.close()


async def a_closed_file_refuses(disk: Disk) -> None:
    file = disk.open_append("log")
    file.close()
    with pytest.raises(OSError):
        file.append(b"x")
    with pytest.raises(OSError):
        await file.sync()
    with pytest.raises(OSError):
        file.truncate(0)


CASES: list[Case] = [
    names_are_sorted,
    appended_bytes_are_read_back,
    opening_again_appends,
    truncating_cuts_and_appending_goes_on_from_there,
    a_missing_file_is_not_found,
    replacing_is_whole,
    renaming_moves_and_overwrites,
    an_open_file_survives_its_name,
    a_closed_file_refuses,
]


@pytest.mark.parametrize("case", CASES)
async def test_the_operating_systems_disk(case: Case, tmp_path: Path) -> None:
    await case(OsDisk(tmp_path / "data"))


@pytest.mark.parametrize("case", CASES)
def test_the_simulated_disk(case: Case) -> None:
    async def scenario(world: World) -> None:
        await case(world.host("a").disk("data"))

    run(1, scenario)
