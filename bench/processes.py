"""Members as real processes for a measurement: started, watched, and gone at the end.

Owns: the processes, and the reading of what they cost from Linux's /proc (elsewhere: zeros). Where
there is `setpriv`, they end even if the benchmark itself is killed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import attrs
import trio

from raftkv.host import Address, parse_address

__all__ = [
    "BenchFailed",
    "Running",
    "environment",
    "free_ports",
    "last_line",
    "open_processes",
    "processor_seconds",
    "resident_bytes",
]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 0.02
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CHANCE = random.SystemRandom()


class BenchFailed(Exception):
    """A member or the load ended badly; the message holds what it said last."""


@attrs.define(eq=False)
class Running:
    """The members of one store: where they serve clients, and what they have cost so far."""

    store: str
    endpoints: list[str]
    """Of each member, in order: `HOST:PORT` for clients."""
    processes: list[subprocess.Popen[bytes]]
    _commands: list[list[str]]
    _directory: Path
    _may_be_dead: set[int] = attrs.field(factory=set)

    @property
    def addresses(self) -> list[Address]:
        return [parse_address(each) for each in self.endpoints]

    def kill(self, number: int) -> None:
        """SIGKILL a member (from 0)."""
        self._may_be_dead.add(number)
        self.processes[number].send_signal(signal.SIGKILL)

    def start_again(self, number: int) -> None:
        """A member (from 0) that was killed, on the data that it has."""
        self.processes[number].wait()
        self.processes[number] = start(self._commands[number], self._log(number))
        self._may_be_dead.discard(number)

    def cpu_seconds(self) -> list[float]:
        """User and system time of each member since its start."""
        return [processor_seconds(process.pid) for process in self.processes]

    def memory_bytes(self) -> list[int]:
        """Resident memory of each member."""
        return [resident_bytes(process.pid) for process in self.processes]

    def check(self) -> None:
        """Raises BenchFailed if a member that should be alive is not."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None and number not in self._may_be_dead:
                said = last_line(self._log(number).read_bytes())
                raise BenchFailed(f"member {number + 1} of {self.store} ended: {said}")

    def _log(self, number: int) -> Path:
        return self._directory / f"m{number + 1}.log"


def processor_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return 0.0


def resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


@contextlib.asynccontextmanager
async def open_processes(
    store: str,
    endpoints: list[str],
    commands: list[list[str]],
    directory: Path,
    first_options: Sequence[str] = (),
) -> AsyncIterator[Running]:
    """Members that listen for clients at `endpoints`; what they say goes below `directory`.

    `first_options` are for the first member, at its first start only.
    """
    processes: list[subprocess.Popen[bytes]] = []
    running = Running(store, endpoints, processes, commands, directory)
    try:
        for number, command in enumerate(commands):
            options = () if number else first_options
            processes.append(start([*command, *options], directory / f"m{number + 1}.log"))
        with trio.fail_after(START_SECONDS):
            for address in running.addresses:
                await _wait_listening(address, running)
        yield running
        running.check()
    finally:
        _stop(processes)


def start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with output.open("ab") as file:
        return subprocess.Popen([*leash, *command], stdout=file, stderr=file, env=environment())


async def _wait_listening(address: Address, running: Running) -> None:
    while True:
        running.check()
        with contextlib.suppress(OSError):
            await trio.aclose_forcefully(await trio.open_tcp_stream(*address))
            return
        await trio.sleep(LOOK_AGAIN_SECONDS)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGKILL is fine: what they wrote is deleted anyway."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def free_ports(count: int) -> list[int]:
    """Below the range of outgoing connections: no client takes them before a member is up."""
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as held:
        while len(sockets) < count:
            sock = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", CHANCE.randrange(10_000, 30_000)))
                sockets.append(sock)
        return [sock.getsockname()[1] for sock in sockets]


def environment() -> dict[str, str]:
    """Children find the packages where we found them, wherever they are run."""
    root = str(Path(__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


def last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(it said nothing)"
