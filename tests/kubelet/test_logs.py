"""Container logs: CRI's lines, the options of `kubectl logs`, following, rotation."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.kubelet.runtime.shim_log import Log
from k8slite.kubelet.serving.logs import (
    Line,
    LogFilter,
    LogOptions,
    follow_log,
    parse_line,
    tail_offset,
)


def stamp(second: int) -> str:
    return f"2026-01-02T03:04:{second:02d}.000000001Z"


def entry(second: int, text: str, stream: str = "stdout", tag: str = "F") -> str:
    return f"{stamp(second)} {stream} {tag} {text}\n"


FILE = (
    entry(1, "one")
    + entry(2, "oops", "stderr")
    + entry(3, "long ", tag="P")
    + entry(3, "line")
    + entry(4, "")
).encode()


def shown(options: LogOptions, data: bytes = FILE) -> str:
    return LogFilter(options).feed(data).decode()


def test_lines() -> None:
    assert parse_line(b"T stdout F a b") == Line(b"T", b"stdout", False, b"a b")
    assert parse_line(b"T stderr P ") == Line(b"T", b"stderr", True, b"")
    for bad in (b"", b"x", b"T stdin F x", b"T stdout X x"):
        assert parse_line(bad) is None


def test_options() -> None:
    assert shown(LogOptions()) == "one\noops\nlong line\n\n"
    assert shown(LogOptions(stream="Stderr")) == "oops\n"
    assert shown(LogOptions(since="2026-01-02T03:04:03Z")) == "long line\n\n"
    assert shown(LogOptions(limit_bytes=6)) == "one\noo"
    assert shown(LogOptions(timestamps=True)).splitlines() == [
        f"{stamp(1)} one",
        f"{stamp(2)} oops",
        f"{stamp(3)} long line",
        f"{stamp(4)} ",
    ]


@given(st.lists(st.integers(1, 40)))
def test_any_cut_shows_the_same(cuts: list[int]) -> None:
    filter_ = LogFilter(LogOptions(timestamps=True))
    out, at = b"", 0
    for size in [*cuts, len(FILE)]:
        out += filter_.feed(FILE[at : at + size])
        at += size
    assert out.decode() == shown(LogOptions(timestamps=True))


@given(st.lists(st.text("ab", max_size=5), max_size=12), st.integers(0, 15), st.booleans())
def test_tail_is_the_end_of_all_lines(lines: list[str], count: int, ended: bool) -> None:
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    data = text.encode()
    whole = data.split(b"\n")
    pieces = [piece + b"\n" for piece in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
    expected = b"".join(pieces[max(0, len(pieces) - count) :] if count else [])
    assert data[tail_offset(io.BytesIO(data), count) :] == expected


@pytest.mark.parametrize("count", [1, 999, 1000, 20000, 30000])
def test_tail_of_a_long_file(count: int) -> None:
    lines = [f"line {number}\n".encode() for number in range(25000)]
    data = b"".join(lines)
    assert data[tail_offset(io.BytesIO(data), count) :] == b"".join(lines[-count:])


async def collect(path: Path, options: LogOptions, running: list[bool]) -> str:
    async def is_running() -> bool:
        return running.pop(0) if running else False

    return b"".join([piece async for piece in follow_log(path, options, is_running)]).decode()


async def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(FILE)
    assert await collect(path, LogOptions(), []) == "one\noops\nlong line\n\n"
    assert await collect(path, LogOptions(tail_lines=1), []) == "\n"
    assert await collect(path, LogOptions(tail_lines=0), []) == ""
    assert await collect(path, LogOptions(limit_bytes=3), []) == "one"
    assert await collect(path, LogOptions(limit_bytes=0), []) == ""


async def test_following_until_the_container_ends(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log = Log(str(tmp_path / "0.log"), 1 << 20, 3)
    log.feed("stdout", b"first\n")
    running = True
    out: list[bytes] = []

    async def is_running() -> bool:
        return running

    async def follow() -> None:
        async for piece in follow_log(tmp_path / "0.log", LogOptions(follow=True), is_running):
            out.append(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.sleep(1)
        assert b"".join(out) == b"first\n"
        log.feed("stderr", b"second\nhalf")
        await trio.sleep(1)
        log.end("stderr")
        running = False
    assert b"".join(out) == b"first\nsecond\nhalf\n"


async def test_following_over_a_rotation(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log = Log(str(tmp_path / "0.log"), 400, 3)
    running = True
    out: list[bytes] = []

    async def is_running() -> bool:
        return running

    async def follow() -> None:
        async for piece in follow_log(tmp_path / "0.log", LogOptions(follow=True), is_running):
            out.append(piece)

    expected = b"".join(b"line %d\n" % number for number in range(60))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for number in range(60):
            log.feed("stdout", b"line %d\n" % number)
            await trio.sleep(0.3)
        await trio.sleep(1)
        running = False
    assert b"".join(out) == expected
    assert sorted(os.listdir(tmp_path)) == ["0.log", "0.log.1", "0.log.2"]
    assert all(entry.stat().st_size <= 400 for entry in os.scandir(tmp_path))


def test_long_lines_are_cut_in_parts(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "0.log"), 1 << 20, 3)
    text = b"x" * 40000
    log.feed("stdout", text[:30000])
    log.feed("stdout", text[30000:] + b"\nnext\n")
    data = (tmp_path / "0.log").read_bytes()
    assert max(len(line) for line in data.splitlines()) < 17000
    assert shown(LogOptions(), data) == text.decode() + "\nnext\n"
