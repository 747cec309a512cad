"""Members as real processes behind relays, which can be killed, stopped, cut off and filled up.

Owns the processes, their data directories and, as root, a small file system for each of them. What
a member's `--peers` names are relays, so every link between two members can be cut by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import trio

from netsim.relay import Relay, open_relay
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.server.support import free_addresses

__all__ = ["Fallen", "Process", "RealMembers", "open_members"]

ROOT = Path(__file__).resolve().parent.parent.parent
DISK_BYTES = 64 * 1024 * 1024
LEAVE_SECONDS = 30.0


class Fallen(AssertionError):
    """A member ended although nobody had asked it to, or left a stack trace."""


@attrs.define
class Process:
    """One `raftkv serve`, over several lives."""

    id: int
    directory: Path
    client: Address
    command: list[str]
    running: subprocess.Popen[bytes] | None = None
    may_end: bool = False
    """It was asked to, or its disk is full: then it ends by itself, as it should."""

    @property
    def name(self) -> str:
        return f"m{self.id}"

    @property
    def log(self) -> Path:
        return self.directory.parent / f"{self.name}.log"

    @property
    def ballast(self) -> Path:
        return self.directory / "ballast"

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self.running = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=environment, cwd=ROOT
            )

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            assert self.running is not None
            self.running.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """Signal it and wait until it's gone; one that won't go is killed."""
        self.may_end = True
        self.send(number)
        with trio.move_on_after(LEAVE_SECONDS):
            while self.alive:
                await trio.sleep(0.01)
        self.send(signal.SIGKILL)
        if self.running is not None:
            self.running.wait()
            self.running = None
        self.may_end = False

    def fill_disk(self) -> None:
        """Leave no room on its file system."""
        self.may_end = True
        with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(size))

    def empty_disk(self) -> None:
        self.ballast.unlink(missing_ok=True)
        self.may_end = False

    def check(self) -> None:
        """Raise Fallen where it has ended by itself."""
        if self.running is not None and not self.alive and not self.may_end:
            raise Fallen(f"{self.name} ended, code {self.running.returncode}: {self._last_words()}")
        if "Traceback" in self.log.read_text(errors="replace"):
            raise Fallen(f"{self.name} left a stack trace, see {self.log}")

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-5:])


@attrs.define
class RealMembers:
    processes: dict[int, Process]
    relay: Relay
    small_disks: bool

    @property
    def endpoints(self) -> list[Address]:
        return [process.client for process in self.processes.values()]

    @property
    def names(self) -> list[str]:
        return [process.name for process in self.processes.values()]

    def check(self) -> None:
        for process in self.processes.values():
            process.check()


@contextlib.asynccontextmanager
async def open_members(
    directory: Path, seed: int, count: int, options: list[str]
) -> AsyncIterator[RealMembers]:
    """So many members, started; gone at the end, while their logs stay."""
    ids = range(1, count + 1)
    addresses = free_addresses(2 * count)
    peers = {id_: addresses[id_ - 1] for id_ in ids}
    small_disks = os.geteuid() == 0
    net: Any = OsHost().net  # the relay has its own type for addresses
    async with open_relay(seed, net) as relay:
        processes = {}
        for id_ in ids:
            command = [sys.executable, "-m", "raftkv.cli", "serve", "--name", f"m{id_}"]
            client = addresses[count + id_ - 1]
            seen = []
            for other, address in peers.items():
                through = (
                    address
                    if other == id_
                    else Address(*await relay.route(f"m{id_}", f"m{other}", address))
                )
                seen.append(f"m{other}={through}")
            data = directory / f"m{id_}"
            data.mkdir()
            command += ["--data-dir", str(data), "--client-listen", str(client)]
            command += ["--peers", ",".join(seen), *options]
            processes[id_] = Process(id_, data, client, command)
        try:
            if small_disks:
                _mount(processes)
            for process in processes.values():
                process.start()
            yield RealMembers(processes, relay, small_disks)
        finally:
            with trio.CancelScope(shield=True):
                for process in processes.values():
                    await process.end(signal.SIGKILL)
            if small_disks:
                _unmount(processes)


def _mount(processes: dict[int, Process]) -> None:
    for process in processes.values():
        options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "raftkv-campaign"]
        subprocess.run(["mount", *options, str(process.directory)], check=True)


def _unmount(processes: dict[int, Process]) -> None:
    for process in processes.values():
        if process.directory.is_mount():
            subprocess.run(["umount", str(process.directory)], check=True)
