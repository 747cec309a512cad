"""Every promise of the store, measured and held against its bar: one command, one table.

    python -m bench.promises                 # some 8 minutes; nothing else should run
    python -m bench.promises --only gets,watch --seconds 3

etcd is measured in the same run, in turn with raftkv, on the same number of members, with fsync, by
the same load. Exit code 0: all hold; 1: one does not, or could not be measured.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from bench import catchup, failover, gets, quorum, start, watch
from bench.cells import POSITIVE, LoadOptions, run_queue
from bench.command import TOLD, add_output, conclude, table

__all__ = ["PARTS", "Effort", "Row", "add_arguments", "measure", "run"]

STORES = ("raftkv", "etcd")
WATCH_CONNECTIONS = 100
COLUMNS = {
    "PROMISE": "promise",
    "BAR": "bar",
    "MEASURED": "measured",
    "ETCD": "etcd",
    "HOLDS": "holds",
}


@attrs.frozen
class Effort:
    """How long and how often is measured."""

    seconds: float = attrs.field(default=5.0, validator=POSITIVE)
    rounds: int = attrs.field(default=3, validator=POSITIVE)
    kills: int = attrs.field(default=30, validator=POSITIVE)
    keys: int = attrs.field(default=100_000, validator=POSITIVE)
    watchers: int = attrs.field(default=1000, validator=POSITIVE)
    directory: str | None = None


@attrs.frozen
class Row:
    promise: str
    bar: str
    measured: str
    holds: bool
    etcd: str = ""


async def puts(effort: Effort) -> list[Row]:
    """Writes, on three and on five members."""
    options = LoadOptions(seconds=effort.seconds)
    grid = quorum.Grid(
        [3, 5], [1, 64, 256], options, STORES, effort.rounds, directory=effort.directory
    )
    told = await quorum.measure(grid)
    cells = {(each["store"], each["members"], each["clients"]): each for each in told["results"]}
    rows = []
    for size in (3, 5):
        for clients in (64, 256):
            ours, theirs = (cells[store, size, clients] for store in STORES)
            ratio = ours["per_second"] / theirs["per_second"]
            rows.append(
                Row(
                    f"puts, {size} members, {clients} clients",
                    ">= 3 x etcd",
                    f"{ours['per_second']:,.0f}/s ({ratio:.1f} x)",
                    ratio >= 3,
                    f"{theirs['per_second']:,.0f}/s",
                )
            )
        ours, theirs = (cells[store, size, 1]["p50_ms"] for store in STORES)
        promise = f"median of a put, {size} members, 1 client"
        rows.append(Row(promise, "< etcd", f"{ours:.2f} ms", ours < theirs, f"{theirs:.2f} ms"))
    for clients in (64, 256):
        ours, theirs = (_loss(cells, store, clients) for store in STORES)
        promise = f"puts lost from 3 to 5 members, {clients} clients"
        rows.append(Row(promise, "< etcd", f"{ours:.0%}", ours < theirs, f"{theirs:.0%}"))
    return rows


def _loss(cells: dict[tuple[str, int, int], dict[str, Any]], store: str, clients: int) -> float:
    three, five = (cells[store, size, clients]["per_second"] for size in (3, 5))
    return 1 - float(five) / float(three)


async def reads(effort: Effort) -> list[Row]:
    options = LoadOptions(op="get", seconds=effort.seconds, keys=min(effort.keys, 10_000))
    told = await gets.measure(
        gets.Reads([3], [64], options, STORES, effort.rounds, effort.directory)
    )
    ours, theirs = told["results"]
    ratio = ours["per_second"] / theirs["per_second"]
    return [
        Row(
            "linearizable gets, 3 members, 64 clients",
            ">= 2 x etcd",
            f"{ours['per_second']:,.0f}/s ({ratio:.1f} x)",
            ratio >= 2,
            f"{theirs['per_second']:,.0f}/s",
        )
    ]


async def watches(effort: Effort) -> list[Row]:
    crowd = watch.Crowd(
        watchers=effort.watchers,
        connections=min(WATCH_CONNECTIONS, effort.watchers),
        seconds=effort.seconds,
        directory=effort.directory,
    )
    (found,) = (await watch.measure(crowd))["results"]
    rate = found["events_per_second"]
    promise = f"events to {crowd.watchers:,} watchers on {crowd.connections} connections"
    return [Row(promise, ">= 100,000/s", f"{rate:,}/s", rate >= 100_000)]


async def starts(effort: Effort) -> list[Row]:
    keys = effort.keys
    one = await start.measure(start.Starts([0, keys], directory=effort.directory))
    three = await start.measure(
        start.Starts([0, keys], members=3, runs=1, directory=effort.directory)
    )
    found = [*one["results"], *three["results"]]
    idle = max(each["memory_mb"] for each in found if not each["keys"])
    filled = max(max(each["memory_mb"], each["memory_again_mb"]) for each in found if each["keys"])
    seconds = one["results"][1]["start_seconds"]
    return [
        Row("memory of an idle member", "< 40 MB", f"{idle} MB", idle < 40),
        Row(f"memory with {keys:,} keys", "< 200 MB", f"{filled} MB", filled < 200),
        Row(f"start with {keys:,} keys", "< 2 s", f"{seconds} s", seconds < 2),
    ]


async def catch_up(effort: Effort) -> list[Row]:
    told = await catchup.measure(
        catchup.Absence(
            writes=effort.keys,
            seconds=effort.seconds,
            runs=effort.rounds,
            directory=effort.directory,
        )
    )
    p99 = {each["phase"]: each["p99_ms"] for each in told["results"]}
    return [
        Row(
            f"p99 while a follower catches up {effort.keys:,} writes",
            "<= 2 x before",
            f"{p99['catching up']} ms / {p99['before']} ms = {told['ratio']}",
            told["ratio"] <= 2,
        )
    ]


async def failovers(effort: Effort) -> list[Row]:
    gaps = failover.summary(await failover.measure(3, effort.kills, effort.directory))
    measured = f"{gaps['median_ms']} ms (p90 {gaps['p90_ms']}, longest {gaps['max_ms']})"
    promise = f"failover, median of {effort.kills} kills"
    return [Row(promise, "< 1 s", measured, gaps["median_ms"] < 1000)]


PARTS: Final[dict[str, Callable[[Effort], Awaitable[list[Row]]]]] = {
    "puts": puts,
    "gets": reads,
    "watch": watches,
    "start": starts,
    "catchup": catch_up,
    "failover": failovers,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--only", default=",".join(PARTS), metavar="PART,...", help="default: %(default)s")
    add("--seconds", type=float, default=5.0, help="measured time of each cell (default: 5)")
    add("--rounds", type=int, default=3, help="of each cell, in turn with etcd (default: 3)")
    add("--kills", type=int, default=30, help="default: %(default)s")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    parts = arguments.only.split(",")
    try:
        if unknown := [part for part in parts if part not in PARTS]:
            raise ValueError(f"there is no part {unknown[0]!r}: {', '.join(PARTS)}")
        effort = Effort(
            arguments.seconds, arguments.rounds, arguments.kills, directory=arguments.dir
        )
    except ValueError as error:
        sys.stderr.write(f"bench promises: {error}\n")
        return 2
    return conclude(
        "promises", functools.partial(measure, effort, parts), show, arguments.output, verdict
    )


async def measure(effort: Effort, parts: list[str]) -> dict[str, Any]:
    before = run_queue()
    rows = [attrs.asdict(row) for part in parts for row in await _part(part, effort)]
    return {"run_queue": [before, run_queue()], "results": rows}


async def _part(part: str, effort: Effort) -> list[Row]:
    """What could not be measured does not hold; the other parts are measured all the same."""
    try:
        return await PARTS[part](effort)
    except TOLD as error:
        return [Row(part, "", f"not measured: {error or 'it took too long'}", holds=False)]


def verdict(results: dict[str, Any]) -> int:
    return 0 if all(row["holds"] for row in results["results"]) else 1


def show(results: dict[str, Any]) -> str:
    machine, (before, after) = results["machine"], results["run_queue"]
    rows = [{**row, "holds": "yes" if row["holds"] else "NO"} for row in results["results"]]
    return (
        f"# {machine['cpus']} processors, {machine['system']}, Python {machine['python']}, "
        f"etcd {machine['etcd']}; run queue {before} before, {after} after\n"
    ) + table(COLUMNS, rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.promises",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
