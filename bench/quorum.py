"""Writes per second by quorum size: real members, real disks, one machine.

Owns: the members it starts and their directory; both are gone when it returns, also after an
error or Ctrl-C. Each size is measured on fresh members with empty logs; everything is written
with fsync, and a put counts only once its reply is there.

`add_arguments` and `run` are what `k8slite bench quorum` uses; programs call `run_quorum`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from bench.members import BenchFailed, Running, environment, last_line, open_members

__all__ = ["add_arguments", "run", "run_quorum"]

COLUMNS = (
    ("MEMBERS", "members"),
    ("CLIENTS", "clients"),
    ("PUT/S", "put_per_second"),
    ("P50 MS", "p50_ms"),
    ("P90 MS", "p90_ms"),
    ("P99 MS", "p99_ms"),
    ("CPU US/PUT", "cpu_us_per_put"),
    ("MEMORY MB", "memory_mb"),
)

Report = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sizes", default="1,3,5", metavar="N,...", help="cluster sizes (default: %(default)s)")
    add("--clients", default="64", metavar="N,...", help="puts in flight (default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="measured time per size (default: 10)")
    add("--connections", type=int, default=8, help="connections of the load (default: 8)")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--dir", default=None, metavar="DIR", help="where the logs go for the time being")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        sizes, clients = _numbers(arguments.sizes), _numbers(arguments.clients)
    except ValueError as error:
        sys.stderr.write(f"bench quorum: {error}\n")
        return 2
    report = _progress if sys.stderr.isatty() else _silence
    try:
        results = run_quorum(
            sizes,
            clients,
            arguments.seconds,
            connections=arguments.connections,
            value_bytes=arguments.value_bytes,
            directory=arguments.dir,
            report=report,
        )
    except KeyboardInterrupt:
        return 130
    except (OSError, BenchFailed) as error:
        sys.stderr.write(f"bench quorum: {error}\n")
        return 1
    if arguments.output == "json":
        sys.stdout.write(json.dumps(results) + "\n")
    else:
        sys.stdout.write(table(results))
    return 0


def table(results: Sequence[dict[str, Any]]) -> str:
    rows = [[str(result[field]) for _, field in COLUMNS] for result in results]
    lines = [[heading for heading, _ in COLUMNS], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    shown = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(shown) + "\n"


def _numbers(text: str) -> list[int]:
    numbers = [int(each) for each in text.split(",") if each.strip().isdigit()]
    if not numbers or min(numbers) < 1 or len(numbers) != len(text.split(",")):
        raise ValueError(f"{text!r} is not a list of numbers like 1,3,5")
    return numbers


def _progress(message: str) -> None:
    sys.stderr.write(f"\r\x1b[K{message}")
    sys.stderr.flush()


def _silence(message: str) -> None:
    """No terminal, no progress."""


def run_quorum(
    sizes: Sequence[int] = (1, 3, 5),
    clients: Sequence[int] = (64,),
    seconds: float = 10.0,
    *,
    connections: int = 8,
    value_bytes: int = 256,
    directory: str | None = None,
    report: Report = _silence,
) -> list[dict[str, Any]]:
    """Measure every size with every number of clients.

    Each result: members, clients, seconds, puts, put_per_second, p50_ms, p90_ms, p99_ms,
    value_bytes, fsync, cpu_us_per_put (of all members together), cpu_us_per_put_by_member,
    memory_mb (of the largest member). Raises BenchFailed, OSError.
    """
    options = {"connections": connections, "value_bytes": value_bytes}
    return trio.run(_measure_all, sizes, clients, seconds, options, directory, report)


async def _measure_all(
    sizes: Sequence[int],
    clients: Sequence[int],
    seconds: float,
    options: dict[str, int],
    directory: str | None,
    report: Report,
) -> list[dict[str, Any]]:
    results = []
    for size in sizes:
        for count in clients:
            report(f"{size} members, {count} clients: starting")
            parent = tempfile.mkdtemp(prefix="raftkv-bench-", dir=directory)
            try:
                async with open_members(size, Path(parent)) as running:
                    report(f"{size} members, {count} clients: measuring for {seconds:g} s")
                    before = running.cpu_seconds()
                    summary = await _load(running.endpoints, count, seconds, options)
                    costs = _costs(running, before, summary["puts_in_all"])
            finally:
                shutil.rmtree(parent, ignore_errors=True)
            if summary["errors"]:
                raise BenchFailed(f"puts failed: {summary['errors'][0]}")
            extra = {"value_bytes": options["value_bytes"], "fsync": True}
            results.append({"members": size, **summary, **costs, **extra})
    report("")
    return results


def _costs(running: Running, before: list[float], puts: int) -> dict[str, Any]:
    """What the members spent on the load: the leader's share is the largest."""
    after = running.cpu_seconds()
    spent = [1e6 * (end - start) / max(puts, 1) for start, end in zip(before, after, strict=True)]
    memory = running.memory_bytes()
    return {
        "cpu_us_per_put": round(sum(spent), 1),
        "cpu_us_per_put_by_member": [round(each, 1) for each in spent],
        "memory_mb": round(max(memory) / 1e6, 1),
    }


async def _load(
    endpoints: list[str], clients: int, seconds: float, options: dict[str, int]
) -> dict[str, Any]:
    """The load, in its own process; it is ended with us."""
    command = [sys.executable, "-m", "bench.load", "--endpoints", ",".join(endpoints)]
    command += ["--clients", str(clients), "--seconds", str(seconds)]
    command += ["--connections", str(options["connections"])]
    command += ["--value-bytes", str(options["value_bytes"])]
    ended = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=environment()
    )
    if ended.returncode:
        raise BenchFailed(f"the load failed: {last_line(ended.stderr)}")
    summary: dict[str, Any] = json.loads(ended.stdout)
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quorum", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
