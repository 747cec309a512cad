"""How long a cluster is without a leader: SIGKILL it, count the time to the next acknowledged put.

    python -m bench.failover --kills 30

Members run with their default timings, as real processes. The time runs from the signal to the
return of the first put that was begun after it, repeated until it's acknowledged. Then the dead
member is started again and has to catch up before the next kill. (`bench quorum --kill-leader`
kills one under load, and checks that nothing acknowledged is lost.)
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

import trio

from bench.cells import run_queue
from bench.command import add_output, conclude
from bench.latency import percentile
from bench.processes import Running
from bench.progress import open_progress
from bench.stores import open_store
from raftkv.client import KvClient, open_client
from raftkv.client.client import UNREACHABLE
from raftkv.errors import NotApplied, UnknownOutcome
from raftkv.host import parse_address
from raftkv.os_host import OsHost

__all__ = ["add_arguments", "measure", "plot", "run", "summary"]

PATIENCE_SECONDS = 60.0
KILL_SECONDS = 2.5
"""With the return of the killed one, for the estimate of the time that is left."""
PLOT_WIDTH = 50


async def measure(size: int, kills: int, directory: str | None = None) -> list[float]:
    """The gap in seconds after each kill, in order. Raises BenchFailed, trio.TooSlowError."""
    gaps: list[float] = []
    host = OsHost()
    async with contextlib.AsyncExitStack() as stack:
        progress = await stack.enter_async_context(open_progress(2 + kills * KILL_SECONDS))
        running = await stack.enter_async_context(open_store("raftkv", size, parent=directory))
        kv = await stack.enter_async_context(open_client(running.addresses, host.net, rng=host.rng))
        await _put(kv)
        for number in range(1, kills + 1):
            with progress.step(f"kill {number} of {kills}", KILL_SECONDS):
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


def show(results: dict[str, Any]) -> str:
    return (
        plot([gap / 1000 for gap in results["gaps_ms"]])
        + f"{results['kills']} kills of {results['members']} members' leaders: median "
        + f"{results['median_ms']} ms, p90 {results['p90_ms']} ms, longest {results['max_ms']} ms\n"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--members", type=int, default=3, help="default: %(default)s")
    add("--kills", type=int, default=30, help="default: %(default)s")
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    if arguments.members < 3 or arguments.kills < 1:
        sys.stderr.write("bench failover: there must be 3 members or more, and a kill\n")
        return 2

    async def measured() -> dict[str, Any]:
        queue = run_queue()
        gaps = await measure(arguments.members, arguments.kills, arguments.dir)
        return {"members": arguments.members, **summary(gaps), "run_queue": queue}

    return conclude("failover", measured, show, arguments.output)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
