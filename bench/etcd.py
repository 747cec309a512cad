"""etcd's members for a comparison: Debian's etcd-server as it is, on free ports of loopback.

Owns their processes. Asks who leads through etcd's own JSON gateway.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from bench.processes import BenchFailed, Running, free_ports, open_processes
from bench.wires import NO_WIRES, Wires

__all__ = ["find_etcd", "leader_of", "open_etcd", "version"]

LOOK_AGAIN_SECONDS = 0.005
ANSWER_SECONDS = 5.0
START_SECONDS = 30.0


def find_etcd() -> str:
    """$ETCD, or `etcd` on the PATH. Raises BenchFailed."""
    path = os.environ.get("ETCD") or shutil.which("etcd")
    if path is None:
        raise BenchFailed("there is no etcd to compare with: apt install etcd-server, or set $ETCD")
    return path


def version() -> str:
    """As `3.4.23`."""
    said = subprocess.run([find_etcd(), "--version"], capture_output=True, text=True, check=True)
    return said.stdout.partition("etcd Version:")[2].split()[0]


@contextlib.asynccontextmanager
async def open_etcd(
    size: int, directory: Path, *, options: Sequence[str] = (), wires: Wires = NO_WIRES
) -> AsyncIterator[Running]:
    """`size` members with their data below `directory`, with fsync; default settings, quiet."""
    program = find_etcd()
    ports = free_ports(2 * size)
    listens = [f"127.0.0.1:{port}" for port in ports[:size]]
    endpoints = [f"127.0.0.1:{port}" for port in ports[size:]]
    async with wires.open(listens) as seen:
        cluster = ",".join(f"m{number}=http://{where}" for number, where in enumerate(seen, 1))
        commands = []
        for number, endpoint in enumerate(endpoints):
            name, client = f"m{number + 1}", f"http://{endpoint}"
            command = [program, "--name", name, "--data-dir", str(directory / name)]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", f"http://{listens[number]}"]
            command += ["--initial-advertise-peer-urls", f"http://{seen[number]}"]
            command += ["--initial-cluster", cluster, "--quota-backend-bytes", str(8 << 30)]
            commands.append([*command, "--logger", "zap", "--log-level", "error", *options])
        async with open_processes("etcd", endpoints, commands, directory) as running:
            with trio.fail_after(START_SECONDS):
                await leader_of(running)
            yield running


async def leader_of(running: Running) -> int:
    """The number (from 0) of the member that leads, as soon as one does."""
    while True:
        running.check()
        for number, endpoint in enumerate(running.endpoints):
            with contextlib.suppress(OSError, ValueError):
                status = await trio.to_thread.run_sync(_status, endpoint)
                if status.get("leader", "0") == status["header"]["member_id"]:
                    return number
        await trio.sleep(LOOK_AGAIN_SECONDS)


def _status(endpoint: str) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{endpoint}/v3/maintenance/status", data=b"{}")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        status: dict[str, Any] = json.load(answer)
    return status
