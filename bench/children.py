"""Processes of a benchmark that talk in lines of JSON: loads and receivers.

Each is a process of its own so that it shares no interpreter with what it measures. They end with
the one who opened them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import IO, Any

import attrs
import trio

from bench.processes import BenchFailed, environment, last_line

__all__ = ["Child", "open_child", "tell"]


@attrs.define(eq=False)
class Child:
    """One such process, as its parent sees it."""

    process: trio.Process
    _complaints: IO[bytes]
    _unread: bytes = b""

    async def said(self) -> dict[str, Any]:
        """Its next line. Raises BenchFailed, with its last complaint where it ended instead."""
        assert self.process.stdout is not None
        while b"\n" not in self._unread:
            data = await self.process.stdout.receive_some()
            if not data:
                self._complaints.seek(0)
                raise BenchFailed(f"a load ended early: {last_line(self._complaints.read())}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise BenchFailed(found["failed"])
        return found

    async def send(self, line: str) -> None:
        """To one that is gone: nothing, `said` will tell."""
        assert self.process.stdin is not None
        with contextlib.suppress(trio.BrokenResourceError):
            await self.process.stdin.send_all(line.encode() + b"\n")


@contextlib.asynccontextmanager
async def open_child(module: str, arguments: Sequence[str]) -> AsyncIterator[Child]:
    """`python -m MODULE ARGUMENTS`, killed at the end if it still runs."""
    with tempfile.TemporaryFile() as complaints:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints.fileno(),
            env=environment(),
        )
        try:
            yield Child(process, complaints)
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()


def tell(what: dict[str, Any]) -> None:
    """For the child: a line to the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
