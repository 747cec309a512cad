"""Events per second at the clients: one writer, many watchers of one prefix.

The writer puts one key after the other, each when the one before is acknowledged, so an event is
one put as one watcher sees it. Receivers are processes of their own (`bench.watch_receiver`), which
check that each watcher gets every event, once and in order. The rate is all events that were
delivered, over the time from the first put until the last watcher had the last one: what was still
on its way when the writer stopped is not left out.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from bench.cells import run_queue
from bench.children import Child, open_child
from bench.command import add_output, conclude, table
from bench.latency import merged, quantiles_ms
from bench.processes import BenchFailed, Running
from bench.progress import Progress, open_progress
from bench.stores import leader_of, open_store
from raftkv.client import open_client
from raftkv.os_host import OsHost

__all__ = ["Crowd", "add_arguments", "measure", "run"]

PREFIX = "bench/"
KEYS = 100
START_SECONDS = 4.0
PATIENCE_SECONDS = 120.0
"""For the last events, once the writer has stopped."""
COLUMNS = {
    "MEMBERS": "members",
    "WATCHERS": "watchers",
    "CONNECTIONS": "connections",
    "PUT/S": "put_per_second",
    "EVENTS/S": "events_per_second",
    "EVENTS/PUSH": "events_per_push",
    "P50 MS": "p50_ms",
    "P99 MS": "p99_ms",
    "CPU US/EVENT": "cpu_us",
    "MEMORY MB": "memory_mb",
}


@attrs.frozen
class Crowd:
    """Who watches, and what is written. `rate`: puts per second, 0: as fast as they are answered.
    `at_leader`: watch there alone, not at all members in turn."""

    members: int = 3
    watchers: int = 1000
    connections: int = 12
    receivers: int = 2
    seconds: float = 10.0
    rate: float = 0.0
    value_bytes: int = 256
    at_leader: bool = False
    directory: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--members", type=int, default=3, help="default: %(default)s")
    add("--watchers", type=int, default=1000, help="default: %(default)s")
    add("--connections", type=int, default=12, help="watchers share them (default: %(default)s)")
    add("--receivers", type=int, default=2, help="receiving processes (default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="time for which it is written (default: 10)")
    add("--rate", type=float, default=0.0, help="puts per second (default: as fast as answered)")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--at-leader", action="store_true", help="watch at the leader, not at all members")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    least = min(arguments.members, arguments.watchers, arguments.receivers, arguments.seconds)
    if least <= 0 or not arguments.receivers <= arguments.connections <= arguments.watchers:
        sys.stderr.write("bench watch: there must be receivers <= connections <= watchers\n")
        return 2
    crowd = Crowd(
        arguments.members,
        arguments.watchers,
        arguments.connections,
        arguments.receivers,
        arguments.seconds,
        arguments.rate,
        max(arguments.value_bytes, 20),
        arguments.at_leader,
        arguments.dir,
    )
    return conclude("watch", functools.partial(measure, crowd), show, arguments.output)


async def measure(crowd: Crowd) -> dict[str, Any]:
    """Raises BenchFailed: also where an event was missing, twice or out of order."""
    queue = run_queue()
    async with open_progress(START_SECONDS + crowd.seconds) as progress:
        async with open_store("raftkv", crowd.members, parent=crowd.directory) as running:
            result = await _watch(crowd, running, progress)
    return {"results": [{**result, "run_queue": queue}]}


async def _watch(crowd: Crowd, running: Running, progress: Progress) -> dict[str, Any]:
    leader = await leader_of(running)
    endpoints = [running.endpoints[leader]] if crowd.at_leader else running.endpoints
    async with _open_receivers(crowd, endpoints) as receivers:
        before = running.cpu_seconds()
        with progress.step(f"{crowd.watchers} watchers: writing", crowd.seconds):
            first_at, puts, revision = await _write(crowd, running)
        stopped_at = time.monotonic()
        with trio.fail_after(PATIENCE_SECONDS):
            for receiver in receivers:
                await receiver.send(str(revision))
            found = [await receiver.said() for receiver in receivers]
        spent = sum(running.cpu_seconds()) - sum(before)
    events = sum(each["events"] for each in found)
    if events != puts * crowd.watchers:
        raise BenchFailed(f"{events} events of {puts} puts for {crowd.watchers} watchers")
    last_at = max(each["last_at"] for each in found)
    counts = merged(
        {int(value): count for value, count in each["histogram_us"].items()} for each in found
    )
    return {
        "members": crowd.members,
        "watchers": crowd.watchers,
        "connections": crowd.connections,
        "at_leader": crowd.at_leader,
        "puts": puts,
        "put_per_second": round(puts / (stopped_at - first_at), 1),
        "events": events,
        "events_per_second": round(events / (last_at - first_at)),
        "events_per_push": round(events / sum(each["pushes"] for each in found), 1),
        **quantiles_ms(counts),
        "behind_seconds": round(max(last_at - stopped_at, 0.0), 2),
        "cpu_us": round(1e6 * spent / max(events, 1), 2),
        "memory_mb": round(max(running.memory_bytes()) / 1e6, 1),
        "value_bytes": crowd.value_bytes,
    }


async def _write(crowd: Crowd, running: Running) -> tuple[float, int, int]:
    """When the first put began, how many there were, and the last one's revision."""
    host = OsHost()
    filler = b"x" * (crowd.value_bytes - 20)
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        await kv.current_revision()  # so that the client knows the leader
        first_at = now = time.monotonic()
        puts = revision = 0
        while now < first_at + crowd.seconds:
            key = b"%s%04d" % (PREFIX.encode(), puts % KEYS)
            revision = await kv.put(key, b"%020.9f" % time.monotonic() + filler)
            puts += 1
            now = time.monotonic()
            if crowd.rate and now < first_at + puts / crowd.rate:
                await trio.sleep(first_at + puts / crowd.rate - now)
    return first_at, puts, revision


@contextlib.asynccontextmanager
async def _open_receivers(crowd: Crowd, endpoints: list[str]) -> AsyncIterator[list[Child]]:
    """All watches are there on entry; the processes are gone at the end."""
    async with contextlib.AsyncExitStack() as stack:
        receivers = []
        for number in range(crowd.receivers):
            turned = endpoints[number % len(endpoints) :] + endpoints[: number % len(endpoints)]
            arguments = ["--prefix", PREFIX, "--endpoints", ",".join(turned)]
            arguments += ["--connections", str(_share(crowd.connections, crowd.receivers, number))]
            arguments += ["--watchers", str(_share(crowd.watchers, crowd.receivers, number))]
            child = open_child("bench.watch_receiver", arguments)
            receivers.append(await stack.enter_async_context(child))
        for receiver in receivers:
            await receiver.said()
        yield receivers


def _share(all_: int, parts: int, number: int) -> int:
    return all_ // parts + (number < all_ % parts)


def show(results: dict[str, Any]) -> str:
    return table(COLUMNS, results["results"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watch", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
