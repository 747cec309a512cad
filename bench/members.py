"""Members as real processes for a measurement: started on free ports, gone at the end.

Owns: the processes, and the reading of what they cost from Linux's /proc (elsewhere: zeros).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import trio

__all__ = ["BenchFailed", "Running", "environment", "last_line", "open_members"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CHANCE = random.SystemRandom()


class BenchFailed(Exception):
    """A member or the load ended badly; the message holds what it said last."""


@attrs.frozen
class Running:
    """The members: where they serve clients, and what they have cost so far."""

    endpoints: list[str]
    processes: list[subprocess.Popen[bytes]]
    _commands: list[list[str]]
    _directory: Path

    def start_again(self, number: int) -> None:
        """A member (from 0) that has ended."""
        log = self._directory / f"m{number + 1}.log"
        self.processes[number] = _start(self._commands[number], log)

    def cpu_seconds(self) -> list[float]:
        """User and system time of each member since its start."""
        return [_cpu_seconds(process.pid) for process in self.processes]

    def memory_bytes(self) -> list[int]:
        """Resident memory of each member."""
        return [_memory_bytes(process.pid) for process in self.processes]


def _cpu_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return 0.0


def _memory_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


@contextlib.asynccontextmanager
async def open_members(size: int, directory: Path) -> AsyncIterator[Running]:
    """`size` members on free ports, with their data below `directory`; m1 campaigns at once."""
    ports = _free_ports(2 * size)
    names = [f"m{number}" for number in range(1, size + 1)]
    peers = ",".join(f"{name}=127.0.0.1:{port}" for name, port in zip(names, ports, strict=False))
    endpoints = [f"127.0.0.1:{port}" for port in ports[size:]]
    processes: list[subprocess.Popen[bytes]] = []
    commands: list[list[str]] = []
    try:
        for name, endpoint in zip(names, endpoints, strict=True):
            command = [sys.executable, "-m", "raftkv.cli", "serve", "--name", name]
            command += ["--data-dir", str(directory / name), "--client-listen", endpoint]
            command += ["--peers", peers] if size > 1 else []
            commands.append(command)
            command = [*command, "--campaign"] if name == "m1" else command
            processes.append(_start(command, directory / f"{name}.log"))
        await _wait_listening(endpoints, processes, directory)
        yield Running(endpoints, processes, commands, directory)
        for name, process in zip(names, processes, strict=True):
            if process.poll() is not None:
                said = last_line((directory / f"{name}.log").read_bytes())
                raise BenchFailed(f"member {name} ended: {said}")
    finally:
        _stop(processes)


def _start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment())


async def _wait_listening(
    endpoints: list[str], processes: list[subprocess.Popen[bytes]], directory: Path
) -> None:
    with trio.fail_after(START_SECONDS):
        for number, endpoint in enumerate(endpoints):
            host, _, port = endpoint.rpartition(":")
            while True:
                if processes[number].poll() is not None:
                    said = last_line((directory / f"m{number + 1}.log").read_bytes())
                    raise BenchFailed(f"a member did not start: {said}")
                with contextlib.suppress(OSError):
                    await trio.aclose_forcefully(await trio.open_tcp_stream(host, int(port)))
                    break
                await trio.sleep(0.05)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGKILL is fine: what they wrote is deleted anyway."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def _free_ports(count: int) -> list[int]:
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
