"""How long a cluster is without a leader: SIGKILL it, count the time to the next acknowledged put.

    python -m bench.failover --kills 30

Members run with their default timings, as real processes. A client puts one key after the other;
the time runs from the signal to the return of the first put that was begun after it. Then the dead
member is started again and has to catch up before the next kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

from bench.latency import percentile
from bench.members import open_members
from bench.processes import BenchFailed, Running
from raftkv.client import KvClient, open_client
from raftkv.client.client import UNREACHABLE
from raftkv.errors import NotApplied, UnknownOutcome
from raftkv.host import parse_address
from raftkv.os_host import OsHost

__all__ = ["measure"]

PATIENCE_SECONDS = 60.0
PLOT_WIDTH = 50


async def measure(size: int, kills: int) -> list[float]:
    """The gap in seconds after each kill, in order. Raises BenchFailed, trio.TooSlowError."""
    gaps: list[float] = []
    host = OsHost()
    with tempfile.TemporaryDirectory(prefix="raftkv-failover-") as directory:
        async with open_members(size, Path(directory)) as running:
            endpoints = [parse_address(each) for each in running.endpoints]
            async with open_client(endpoints, host.net, rng=host.rng) as kv:
                await _put(kv)
                for _ in range(kills):
                    with trio.fail_after(PATIENCE_SECONDS):
                        gaps.append(await _kill_leader(kv, running))
                        await _caught_up(kv, running)
    return gaps


async def _put(kv: KvClient) -> None:
    """A put that is repeated until it's acknowledged."""
    while True:
        try:
            await kv.put(b"bench/failover", b"x" * 256)
            return
        except UnknownOutcome:
            continue
        except NotApplied:
            await trio.sleep(0.005)


async def _kill_leader(kv: KvClient, running: Running) -> float:
    names = [f"m{number}" for number in range(1, len(running.endpoints) + 1)]
    leader = next(member["name"] for member in await kv.members() if member["leader"])
    number = names.index(leader)
    running.kill(number)
    killed_at = trio.current_time()
    await _put(kv)
    gap = trio.current_time() - killed_at
    running.start_again(number)
    return gap


async def _caught_up(kv: KvClient, running: Running) -> None:
    revision = await kv.current_revision()
    for endpoint in running.endpoints:
        while True:
            with contextlib.suppress(*UNREACHABLE):
                status = await kv.status(parse_address(endpoint))
                if status["revision"] >= revision and status["leader"]:
                    break
            await trio.sleep(0.05)
    await trio.sleep(0.5)


def summary(gaps: list[float]) -> dict[str, Any]:
    ordered = sorted(gaps)
    return {
        "kills": len(ordered),
        "median_ms": round(percentile(ordered, 0.5) * 1000, 1),
        "p90_ms": round(percentile(ordered, 0.9) * 1000, 1),
        "max_ms": round(ordered[-1] * 1000, 1),
        "gaps_ms": [round(gap * 1000, 1) for gap in gaps],
    }


def plot(gaps: list[float]) -> str:
    """The distribution: how many kills ended within each tenth of a second."""
    counts: dict[int, int] = {}
    for gap in gaps:
        counts[int(gap * 10)] = counts.get(int(gap * 10), 0) + 1
    most = max(counts.values())
    lines = []
    for tenth in range(max(counts) + 1):
        count = counts.get(tenth, 0)
        bar = "#" * round(count / most * PLOT_WIDTH)
        lines.append(f"{tenth / 10:4.1f} to {tenth / 10 + 0.1:3.1f} s  {count:3}  {bar}".rstrip())
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    try:
        gaps = trio.run(measure, arguments.members, arguments.kills)
    except (BenchFailed, OSError, trio.TooSlowError) as error:
        sys.stderr.write(f"bench failover: {error}\n")
        return 1
    found = summary(gaps)
    if arguments.output == "json":
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(plot(gaps))
        sys.stdout.write(
            f"{found['kills']} kills: median {found['median_ms']} ms, p90 {found['p90_ms']} ms, "
            f"longest {found['max_ms']} ms\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
