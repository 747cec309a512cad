"""The progress bar shows how far a measurement is, on terminals alone."""

from __future__ import annotations

import io

import pytest
import trio
import trio.testing

from bench.progress import bar, open_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def measure(stream: io.StringIO) -> None:
    async with open_progress(4.0, stream) as progress:
        with progress.step("first", 2.0):
            await trio.sleep(1)
        with progress.step("second", 2.0):
            await trio.sleep(1)


async def test_on_a_terminal(autojump_clock: trio.testing.MockClock) -> None:
    stream = Terminal()
    await measure(stream)
    drawn = stream.getvalue().split("\r\x1b[K")
    assert any("  0%" in line and "first" in line for line in drawn)
    assert any(" 50%" in line and "second" in line for line in drawn)
    assert stream.getvalue().endswith("\r\x1b[K")


async def test_elsewhere_it_is_silent(autojump_clock: trio.testing.MockClock) -> None:
    stream = io.StringIO()
    await measure(stream)
    assert stream.getvalue() == ""


async def test_errors_come_as_they_are() -> None:
    with pytest.raises(KeyError):
        async with open_progress(1.0, Terminal()):
            raise KeyError("x")


def test_bar() -> None:
    assert bar(0.0, 0.0, 90).endswith("  0%, 1:30 left")
    assert bar(0.5, 60.0, 90) == "[############------------]  50%, 1:00 left"
    assert bar(2.0, 60.0, 90).endswith("100%, 0:00 left")
