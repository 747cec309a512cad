"""raftkv's members for a measurement: `raftkv serve` as it is, on free ports of loopback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

from bench.processes import BenchFailed, Running, environment, free_ports, open_processes
from bench.wires import NO_WIRES, Wires
from raftkv.client import open_client
from raftkv.client.client import UNREACHABLE
from raftkv.os_host import OsHost

__all__ = ["BenchFailed", "environment", "leader_of", "open_members", "read_all"]

LOOK_AGAIN_SECONDS = 0.005
PAGE_KEYS = 10_000


@contextlib.asynccontextmanager
async def open_members(
    size: int, directory: Path, *, options: Sequence[str] = (), wires: Wires = NO_WIRES
) -> AsyncIterator[Running]:
    """`size` members with their data below `directory`; m1 campaigns at once."""
    ports = free_ports(2 * size)
    names = [f"m{number}" for number in range(1, size + 1)]
    listens = [f"127.0.0.1:{port}" for port in ports[:size]]
    endpoints = [f"127.0.0.1:{port}" for port in ports[size:]]
    async with wires.open(listens) as seen:
        peers = ",".join(f"{name}={where}" for name, where in zip(names, seen, strict=True))
        commands = []
        for name, listen, endpoint in zip(names, listens, endpoints, strict=True):
            command = [sys.executable, "-m", "raftkv.cli", "serve", "--name", name]
            command += ["--data-dir", str(directory / name), "--client-listen", endpoint]
            command += ["--peers", peers, "--peer-listen", listen] if size > 1 else []
            commands.append([*command, *options])
        async with open_processes(
            "raftkv", endpoints, commands, directory, ["--campaign"]
        ) as running:
            yield running


async def leader_of(running: Running) -> int:
    """The number (from 0) of the member that leads, as soon as one does."""
    host = OsHost()
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        while True:
            running.check()
            for number, address in enumerate(running.addresses):
                with contextlib.suppress(*UNREACHABLE):
                    if (await kv.status(address))["role"] == "leader":
                        return number
            await trio.sleep(LOOK_AGAIN_SECONDS)


async def read_all(running: Running, prefix: bytes) -> dict[bytes, bytes]:
    """Keys and values below a prefix as they are now, by a linearizable read."""
    host = OsHost()
    found: dict[bytes, bytes] = {}
    end = prefix[:-1] + bytes((prefix[-1] + 1,))
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        page = await kv.range(prefix, end, limit=PAGE_KEYS)
        while True:
            found |= {each.key: each.value for each in page.kvs}
            if not page.more:
                return found
            page = await kv.range(page.kvs[-1].key + b"\0", end, limit=PAGE_KEYS)
