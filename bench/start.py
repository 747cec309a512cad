"""How fast a member starts on the data that it has, and how much memory that takes.

For each number of keys: fresh members are filled, killed, and started again on their logs and
snapshots. The time runs from the start of the processes until a client has read the last key, which
asks for a leader and everything before it; the processor time is that of one member until then,
which others' work does not stretch. Memory is resident, of the largest member: filled, after
some idle time; and again after the new start.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from typing import Any

import attrs
import trio

from bench.cells import POSITIVE, run_queue
from bench.command import add_output, conclude, numbers, table
from bench.filling import fill
from bench.processes import BenchFailed, Running
from bench.progress import Progress, open_progress
from bench.sources import key_of
from bench.stores import open_store
from raftkv.client import open_client
from raftkv.os_host import OsHost

__all__ = ["Starts", "add_arguments", "measure", "run"]

PATIENCE_SECONDS = 120.0
FILL_PER_SECOND = 25_000
"""For the estimate of the time that is left."""
COLUMNS = {
    "MEMBERS": "members",
    "KEYS": "keys",
    "START S": "start_seconds",
    "START CPU S": "start_cpu_seconds",
    "MEMORY MB": "memory_mb",
    "STARTED AGAIN MB": "memory_again_mb",
}


@attrs.frozen
class Starts:
    """Which numbers of keys, and how often the members start again on each."""

    keys: list[int]
    members: int = attrs.field(default=1, validator=POSITIVE)
    value_bytes: int = attrs.field(default=256, validator=POSITIVE)
    runs: int = attrs.field(default=3, validator=POSITIVE)
    idle: float = 2.0
    directory: str | None = None

    def planned_seconds(self, keys: int) -> float:
        return 2 + keys / FILL_PER_SECOND + self.runs * (1.5 + self.idle)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--keys", default="0,100000", metavar="N,...", help="default: %(default)s")
    add("--members", type=int, default=1, help="default: %(default)s")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--runs", type=int, default=3, metavar="N", help="starts on each (default: 3)")
    add("--idle", type=float, default=2.0, metavar="SECONDS", help="before memory is measured")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        starts = Starts(
            numbers(arguments.keys, least=0),
            arguments.members,
            arguments.value_bytes,
            arguments.runs,
            arguments.idle,
            arguments.dir,
        )
    except ValueError as error:
        sys.stderr.write(f"bench start: {error}\n")
        return 2
    return conclude("start", functools.partial(measure, starts), show, arguments.output)


async def measure(starts: Starts) -> dict[str, Any]:
    """Raises BenchFailed, also where a key is not there after a start."""
    async with open_progress(sum(map(starts.planned_seconds, starts.keys))) as progress:
        return {"results": [await _measure(starts, keys, progress) for keys in starts.keys]}


async def _measure(starts: Starts, keys: int, progress: Progress) -> dict[str, Any]:
    queue = run_queue()
    seconds, processor, again = [], [], []
    async with open_store("raftkv", starts.members, parent=starts.directory) as running:
        with progress.step(f"{keys} keys: filling", 2 + keys / FILL_PER_SECOND):
            await fill(running, keys, starts.value_bytes)
            await trio.sleep(starts.idle)
        memory = max(running.memory_bytes())
        for _ in range(starts.runs):
            with progress.step(f"{keys} keys: starting", 1.5 + starts.idle):
                seconds.append(await _start_again(running, keys, starts.value_bytes))
                processor.append(max(running.cpu_seconds()))
                await trio.sleep(starts.idle)
            again.append(max(running.memory_bytes()))
    return {
        "members": starts.members,
        "keys": keys,
        "value_bytes": starts.value_bytes,
        "start_seconds": round(statistics.median(seconds), 2),
        "start_cpu_seconds": round(statistics.median(processor), 2),
        "start_seconds_by_run": [round(each, 2) for each in seconds],
        "memory_mb": round(memory / 1e6, 1),
        "memory_again_mb": round(max(again) / 1e6, 1),
        "run_queue": queue,
    }


async def _start_again(running: Running, keys: int, value_bytes: int) -> float:
    """Kill all members, start them, read the last key: the seconds from start to answer."""
    members = range(len(running.processes))
    for number in members:
        running.kill(number)
    host = OsHost()
    for number in members:
        running.processes[number].wait()
    begin = time.monotonic()
    for number in members:
        running.start_again(number)
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        with trio.fail_after(PATIENCE_SECONDS):
            last = await kv.get(key_of(max(keys - 1, 0)))
        seconds = time.monotonic() - begin
        count = (await kv.range(key_of(0), key_of(keys), count_only=True)).count if keys else 0
    if (last is None) != (not keys) or count != keys:
        raise BenchFailed(f"only {count} of {keys} keys are there after a start")
    if last is not None and len(last.value) != value_bytes:
        raise BenchFailed("the last key has another value after a start")
    return seconds


def show(results: dict[str, Any]) -> str:
    return table(COLUMNS, results["results"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
