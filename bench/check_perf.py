"""Does our load get out of etcd what etcd's own does? A check of the comparison, not of a store.

`etcdctl check perf --load=xl` puts 1 KiB values at 276-byte keys that are all new, over 1,000
connections with one client each, for a minute, and no faster than 15,000 in a second. The same is
done with our load, without that limit, on etcd and on raftkv. The larger of etcd's two figures is
the one that counts.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import attrs
import trio

from bench.cells import POSITIVE, LoadOptions, figures, load
from bench.command import add_output, conclude, table
from bench.processes import BenchFailed, Running
from bench.progress import open_progress
from bench.stores import leader_of, open_store

__all__ = ["Check", "add_arguments", "measure", "run", "throughput"]

CLIENTS = 1000
KEYS = 10_000_000
KEY_BYTES, VALUE_BYTES = 276, 1024
MINUTE = 60.0
PATIENCE = ("--dial-timeout=20s", "--command-timeout=60s")
COLUMNS = {
    "STORE": "store",
    "LOAD": "load",
    "MEMBERS": "members",
    "CLIENTS": "clients",
    "PUT/S": "per_second",
    "RATIO": "ratio",
}


@attrs.frozen
class Check:
    members: int = attrs.field(default=3, validator=POSITIVE)
    seconds: float = attrs.field(default=10.0, validator=POSITIVE)
    directory: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--members", type=int, default=3, help="default: %(default)s")
    add("--seconds", type=float, default=10.0, help="of our load on each store (default: 10)")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        check = Check(arguments.members, arguments.seconds, arguments.dir)
    except ValueError as error:
        sys.stderr.write(f"bench check_perf: {error}\n")
        return 2
    return conclude("check_perf", functools.partial(measure, check), show, arguments.output)


async def measure(check: Check) -> dict[str, Any]:
    options = LoadOptions(
        seconds=check.seconds,
        connections=CLIENTS,
        value_bytes=VALUE_BYTES,
        key_bytes=KEY_BYTES,
        keys=KEYS,
    )
    rows: list[dict[str, Any]] = []
    async with open_progress(MINUTE + 2 * check.seconds + 10) as progress:
        for store in ("raftkv", "etcd"):
            with progress.step(f"{store}, our load", check.seconds + 3):
                async with open_store(store, check.members, parent=check.directory) as running:
                    cell = await load(running, CLIENTS, options)
            rows.append({**figures([cell]), "load": "ours"})
        with progress.step("etcd, etcdctl check perf", MINUTE + 4):
            async with open_store("etcd", check.members, parent=check.directory) as running:
                found = {"store": "etcd", "members": check.members, "clients": CLIENTS}
                rate = await _etcdctl(running)
                rows.append({**found, "load": "etcdctl check perf", "per_second": rate})
    best = max(row["per_second"] for row in rows if row["store"] == "etcd")
    rows[0]["ratio"] = round(rows[0]["per_second"] / best, 2)
    return {"results": rows}


async def _etcdctl(running: Running) -> float:
    """Writes per second as it tells them. Raises BenchFailed."""
    program = shutil.which("etcdctl")
    if program is None:
        raise BenchFailed("there is no etcdctl: apt install etcd-client")
    endpoint = running.endpoints[await leader_of(running)]
    ended = await trio.run_process(
        [program, *PATIENCE, "--endpoints", endpoint, "check", "perf", "--load=xl"],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,  # it fails where it gets less than it thinks right
        env={**os.environ, "ETCDCTL_API": "3"},
    )
    return throughput(ended.stdout.decode(errors="replace"))


def throughput(said: str) -> float:
    """Out of what `etcdctl check perf` prints, passed or failed. Raises BenchFailed."""
    found = re.search(r"Throughput (?:is|too low:) (\d+) writes/s", said)
    if found is None or "ERROR(" in said:
        raise BenchFailed(f"etcdctl check perf: {said.splitlines()[-1] if said else 'silence'}")
    return float(found[1])


def show(results: dict[str, Any]) -> str:
    return table(COLUMNS, results["results"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.check_perf", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
