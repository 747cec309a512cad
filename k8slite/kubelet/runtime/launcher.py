"""The kubelet's end of the launcher: ask for shims, hear when they have started.

Owns one launcher process (see `shim.py`) and starts a new one when it has died. Requests may be
answered in any order; a ticket tells which answer is whose. The shims are not its children and
are not touched when it ends.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from k8slite.client.background import open_background
from k8slite.kubelet.runtime.interface import RuntimeFailure

log = logging.getLogger(__name__)

SHIM = Path(__file__).with_name("shim.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.define
class _Ticket:
    done: trio.Event = attrs.field(factory=trio.Event)
    answer: dict[str, Any] | None = None


class Launcher:
    """Starts shims. Made by `open_launcher`."""

    def __init__(self, directory: Path, nursery: trio.Nursery) -> None:
        self._directory = directory
        self._nursery = nursery
        self._process: trio.Process | None = None
        self._tickets: dict[int, _Ticket] = {}
        self._last = 0
        self._turn = trio.Lock()

    async def launch(self, op: str, directory: Path) -> int:
        """Start the shim described in `directory`; the pid it reports.

        Raises RuntimeFailure with the shim's own words.
        """
        self._last += 1
        number = self._last
        ticket = self._tickets[number] = _Ticket()
        request = {"op": op, "dir": str(directory), "ticket": number}
        try:
            async with self._turn:  # one request at a time goes down the pipe
                stdin = await self._pipe()
                await stdin.send_all(json.dumps(request).encode() + b"\n")
            await ticket.done.wait()
        except trio.BrokenResourceError:
            raise RuntimeFailure("the launcher of containers has died") from None
        finally:
            del self._tickets[number]
        if ticket.answer is None:
            raise RuntimeFailure("the launcher of containers has died")
        if "error" in ticket.answer:
            raise RuntimeFailure(ticket.answer["error"])
        return int(ticket.answer["pid"])

    async def _pipe(self) -> trio.abc.SendStream:
        """The way to a launcher that runs, started if need be."""
        if self._process is None or self._process.returncode is not None:
            await self._start()
        assert self._process is not None, "just started"
        assert self._process.stdin is not None, "opened with a pipe"
        return self._process.stdin

    async def _start(self) -> None:
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", str(SHIM), str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": PATH, "LANG": os.environ.get("LANG", "C.UTF-8")},
            start_new_session=True,
        )
        self._nursery.start_soon(self._listen, self._process)

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        try:
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    answer = json.loads(line)
                    ticket = self._tickets.get(answer["ticket"])
                    if ticket is not None:
                        ticket.answer = answer
                        ticket.done.set()
        except trio.BrokenResourceError:
            log.warning("launcher's output broke pid=%d", process.pid)
        code = await process.wait()
        log.warning("launcher ended pid=%d code=%d", process.pid, code)
        for ticket in self._tickets.values():
            ticket.done.set()

    async def aclose(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with trio.CancelScope(shield=True):
            await self._process.stdin.aclose()
            with trio.move_on_after(2):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            if self._process.stdout is not None:
                await self._process.stdout.aclose()


@asynccontextmanager
async def open_launcher(directory: Path) -> AsyncGenerator[Launcher]:
    async with open_background() as nursery:
        launcher = Launcher(directory, nursery)
        try:
            yield launcher
        finally:
            nursery.cancel_scope.cancel()
            await launcher.aclose()
