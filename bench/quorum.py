"""Writes per second by quorum size: real members, real disks, one machine.

Owns: the members it starts and their directory; both are gone when it returns, also after an
error or Ctrl-C. Each cell is measured on fresh members with empty logs; a put counts only once its
reply is there. Cells of two stores are measured in turn: other work on the machine meets both.

`add_arguments` and `run` are what the command line uses; programs call `run_quorum`.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from bench.cells import POSITIVE, Cell, LoadOptions, figures, load
from bench.command import add_output, conclude, numbers, table
from bench.comparison import add_ratios
from bench.load import WARM_UP_SECONDS
from bench.progress import open_progress
from bench.quorum_plot import conditions, draw
from bench.stores import open_store
from bench.wires import NO_WIRES, PRESETS, Wires, parse_latency

__all__ = ["Grid", "add_arguments", "measure", "run", "run_quorum"]

START_SECONDS = 2.0
"""What it takes to start and stop members, for the estimate of the time that is left."""
COLUMNS = {
    "STORE": "store",
    "MEMBERS": "members",
    "CLIENTS": "clients",
    "PUT/S": "per_second",
    "P50 MS": "p50_ms",
    "P90 MS": "p90_ms",
    "P99 MS": "p99_ms",
    "CPU US/PUT": "cpu_us",
    "MEMORY MB": "memory_mb",
}


@attrs.frozen
class Grid:
    """All cells: each size with each number of clients, for each store, so many times in turn."""

    sizes: Sequence[int]
    clients: Sequence[int]
    load: LoadOptions
    stores: Sequence[str] = ("raftkv",)
    rounds: int = attrs.field(default=1, validator=POSITIVE)
    directory: str | None = None
    fsync: bool = True
    wires: Wires = NO_WIRES

    def __attrs_post_init__(self) -> None:
        if self.load.kill_leader and min(self.sizes) < 3:
            raise ValueError("--kill-leader needs --sizes of 3 or more: no smaller one survives it")
        if self.load.kill_leader and "etcd" in self.stores:
            raise ValueError("--kill-leader kills raftkv's: leave --compare away")
        if not self.fsync and "etcd" in self.stores:
            raise ValueError("etcd always syncs: leave --compare or --no-fsync away")

    @property
    def cell_seconds(self) -> float:
        return self.load.seconds + WARM_UP_SECONDS + START_SECONDS

    @property
    def seconds(self) -> float:
        cells = len(self.sizes) * len(self.clients) * len(self.stores) * self.rounds
        return cells * self.cell_seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--sizes", default="1,3,5,7,9", metavar="N,...", help="cluster sizes (default: %(default)s)"
    )
    add(
        "--clients",
        default="1,16,64,256",
        metavar="N,...",
        help="puts in flight (default: %(default)s)",
    )
    add("--seconds", type=float, default=5.0, help="measured time per cell (default: 5)")
    add("--connections", type=int, default=8, help="connections of the load (default: 8)")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--compare", choices=("etcd",), default=None, help="measure it in turn with raftkv")
    add("--no-fsync", action="store_true", help="members acknowledge what no disk has (unsafe)")
    add(
        "--latency",
        default="0",
        metavar="PRESET|MS[:JITTER]",
        help=f"between members, one way: {', '.join(PRESETS)} or milliseconds (default: none)",
    )
    add(
        "--kill-leader",
        action="store_true",
        help="SIGKILL it half-way: tells the failover gap, checks that nothing is lost",
    )
    add("--svg", default=None, metavar="FILE", help="draw the results")
    add("--rounds", type=int, default=1, metavar="N", help="measure each cell N times (default: 1)")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        grid = _grid(arguments)
    except ValueError as error:
        sys.stderr.write(f"bench quorum: {error}\n")
        return 2
    return conclude(
        "quorum", functools.partial(_measure_and_draw, grid, arguments.svg), show, arguments.output
    )


async def _measure_and_draw(grid: Grid, svg: str | None) -> dict[str, Any]:
    found = await measure(grid)
    if svg is not None:
        await trio.Path(svg).write_text(draw(found))
    return found


def _grid(arguments: argparse.Namespace) -> Grid:
    return Grid(
        numbers(arguments.sizes),
        numbers(arguments.clients),
        LoadOptions(
            seconds=arguments.seconds,
            connections=arguments.connections,
            value_bytes=arguments.value_bytes,
            kill_leader=arguments.kill_leader,
        ),
        stores=("raftkv", arguments.compare) if arguments.compare else ("raftkv",),
        rounds=arguments.rounds,
        directory=arguments.dir,
        fsync=not arguments.no_fsync,
        wires=parse_latency(arguments.latency),
    )


def run_quorum(grid: Grid) -> list[dict[str, Any]]:
    """Measure every cell: `figures` of each. Raises BenchFailed, OSError."""
    results: list[dict[str, Any]] = trio.run(measure, grid)["results"]
    return results


async def measure(grid: Grid) -> dict[str, Any]:
    results = []
    async with open_progress(grid.seconds) as progress:
        for size in grid.sizes:
            for clients in grid.clients:
                cells: dict[str, list[Cell]] = {store: [] for store in grid.stores}
                for _ in range(grid.rounds):
                    for store in grid.stores:
                        what = f"{store}, {size} members, {clients} clients"
                        with progress.step(what, grid.cell_seconds):
                            cells[store].append(await _cell(grid, store, size, clients))
                results += [figures(each) for each in cells.values()]
    add_ratios(results)
    latency = {"latency_ms": grid.wires.latency_ms, "jitter_ms": grid.wires.jitter_ms}
    return {"fsync": grid.fsync, **latency, "results": results}


async def _cell(grid: Grid, store: str, size: int, clients: int) -> Cell:
    options = () if grid.fsync else ("--unsafe-no-fsync",)
    async with open_store(
        store, size, parent=grid.directory, options=options, wires=grid.wires
    ) as running:
        return await load(running, clients, grid.load)


def show(results: dict[str, Any]) -> str:
    rows = results["results"]
    columns = COLUMNS | {"GAP MS": "gap_ms", "LOST": "lost", "RATIO": "ratio"}
    there = {name: field for name, field in columns.items() if any(field in row for row in rows)}
    return f"# {conditions(results)}\n" + table(there, rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quorum", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
