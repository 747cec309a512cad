"""Linearizable reads per second: real members, keys that are there, one machine.

Every get asks for the newest state, so a majority must confirm that the leader still leads. Cells
of two stores are measured in turn. All gets go to the leader; `--everywhere` spreads etcd's over
all its members, which costs more processor time but may be faster where there are many processors.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

import attrs

from bench.cells import POSITIVE, Cell, LoadOptions, figures, load
from bench.command import add_output, conclude, numbers, table
from bench.comparison import add_ratios
from bench.filling import fill
from bench.load import WARM_UP_SECONDS
from bench.progress import Progress, open_progress
from bench.stores import open_store

__all__ = ["Reads", "add_arguments", "measure", "run"]

FILL_SECONDS = 4.0
COLUMNS = {
    "STORE": "store",
    "MEMBERS": "members",
    "CLIENTS": "clients",
    "GET/S": "per_second",
    "P50 MS": "p50_ms",
    "P90 MS": "p90_ms",
    "P99 MS": "p99_ms",
    "CPU US/GET": "cpu_us",
}


@attrs.frozen
class Reads:
    """Each size with each number of clients; the members of one size stay for all of them."""

    sizes: list[int]
    clients: list[int]
    load: LoadOptions
    stores: tuple[str, ...] = ("raftkv",)
    rounds: int = attrs.field(default=1, validator=POSITIVE)
    directory: str | None = None

    @property
    def seconds(self) -> float:
        loads = len(self.clients) * (self.load.seconds + WARM_UP_SECONDS)
        return len(self.sizes) * len(self.stores) * self.rounds * (FILL_SECONDS + loads)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--members", default="3", metavar="N,...", help="cluster sizes (default: %(default)s)")
    add("--clients", default="64", metavar="N,...", help="gets in flight (default: %(default)s)")
    add("--seconds", type=float, default=5.0, help="measured time per cell (default: 5)")
    add("--connections", type=int, default=8, help="connections of the load (default: 8)")
    add("--keys", type=int, default=10_000, help="keys that are there (default: 10000)")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--everywhere", action="store_true", help="ask all members of etcd, not its leader alone")
    add("--compare", choices=("etcd",), default=None, help="measure it in turn with raftkv")
    add("--rounds", type=int, default=1, metavar="N", help="measure each cell N times (default: 1)")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        reads = Reads(
            numbers(arguments.members),
            numbers(arguments.clients),
            LoadOptions(
                op="get",
                seconds=arguments.seconds,
                connections=arguments.connections,
                keys=arguments.keys,
                value_bytes=arguments.value_bytes,
                everywhere=arguments.everywhere,
            ),
            ("raftkv", arguments.compare) if arguments.compare else ("raftkv",),
            arguments.rounds,
            arguments.dir,
        )
    except ValueError as error:
        sys.stderr.write(f"bench gets: {error}\n")
        return 2
    return conclude("gets", functools.partial(measure, reads), show, arguments.output)


async def measure(reads: Reads) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    async with open_progress(reads.seconds) as progress:
        for size in reads.sizes:
            cells: dict[tuple[int, str], list[Cell]] = {
                (clients, store): [] for clients in reads.clients for store in reads.stores
            }
            for _ in range(reads.rounds):
                for store in reads.stores:
                    await _one_store(reads, store, size, cells, progress)
            results += [figures(each) for each in cells.values()]
    add_ratios(results)
    return {"results": results}


async def _one_store(
    reads: Reads,
    store: str,
    size: int,
    cells: dict[tuple[int, str], list[Cell]],
    progress: Progress,
) -> None:
    async with open_store(store, size, parent=reads.directory) as running:
        with progress.step(f"{store}, {size} members: filling", FILL_SECONDS):
            await fill(running, reads.load.keys, reads.load.value_bytes)
        for clients in reads.clients:
            what = f"{store}, {size} members, {clients} clients"
            with progress.step(what, reads.load.seconds + WARM_UP_SECONDS):
                cells[clients, store].append(await load(running, clients, reads.load))


def show(results: dict[str, Any]) -> str:
    ratio = {"RATIO": "ratio"} if any("ratio" in each for each in results["results"]) else {}
    return table(COLUMNS | ratio, results["results"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gets", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
