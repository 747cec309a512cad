"""What a follower that was away costs the others while it catches up.

Three members serve a steady load. A follower is killed, and so many keys are written without it, at
full speed, while the steady load pauses. Then the steady load goes on, and the follower starts
again. Its catching up is over when it has applied what the leader had committed a moment before.
Told are the latencies of the steady load's puts in each phase: `ratio` is p99 while it caught up
over p99 before.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import trio

from bench.cells import POSITIVE, run_queue
from bench.children import Child, open_child
from bench.command import add_output, conclude, table
from bench.filling import fill
from bench.latency import percentile
from bench.processes import BenchFailed, Running
from bench.progress import Progress, open_progress
from bench.stores import leader_of, open_store
from raftkv.client import KvClient, open_client
from raftkv.client.client import UNREACHABLE
from raftkv.os_host import OsHost

__all__ = ["Absence", "add_arguments", "measure", "run"]

LOOK_AGAIN_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
SETTLE_SECONDS = 0.3
"""Until the last steady puts are answered, before the many."""
FILL_SECONDS, CATCH_UP_SECONDS = 6.0, 4.0
"""For the estimate of the time that is left."""
PHASES = ("before", "away", "catching up", "after")
COLUMNS = {"PHASE": "phase", "PUTS": "puts", "P50 MS": "p50_ms", "P99 MS": "p99_ms"}


@attrs.frozen
class Absence:
    """`rate`: puts per second of the steady load, by so many `clients`; `writes`: while the
    follower is away, `in_flight` of them at a time; `seconds`: of each phase but the catching up.
    All of it so many times, on fresh members."""

    members: int = attrs.field(default=3, validator=attrs.validators.ge(3))
    writes: int = attrs.field(default=100_000, validator=POSITIVE)
    rate: float = attrs.field(default=1000.0, validator=POSITIVE)
    clients: int = attrs.field(default=16, validator=POSITIVE)
    value_bytes: int = attrs.field(default=256, validator=POSITIVE)
    seconds: float = attrs.field(default=5.0, validator=POSITIVE)
    runs: int = attrs.field(default=1, validator=POSITIVE)
    in_flight: int = attrs.field(default=256, validator=POSITIVE)
    directory: str | None = None

    @property
    def planned_seconds(self) -> float:
        return self.runs * (3 * self.seconds + FILL_SECONDS + CATCH_UP_SECONDS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--members", type=int, default=3, help="default: %(default)s")
    add("--writes", type=int, default=100_000, help="without the follower (default: %(default)s)")
    add("--rate", type=float, default=1000.0, help="steady puts per second (default: 1000)")
    add("--clients", type=int, default=16, help="of the steady load (default: %(default)s)")
    add("--value-bytes", type=int, default=256, help="size of each value (default: 256)")
    add("--seconds", type=float, default=5.0, help="of each other phase (default: 5)")
    add("--runs", type=int, default=1, metavar="N", help="on fresh members (default: 1)")
    add(
        "--in-flight",
        type=int,
        default=256,
        help="of the writes without it (default: 256); few make many log entries, so a snapshot",
    )
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command; its exit code."""
    try:
        absence = Absence(
            arguments.members,
            arguments.writes,
            arguments.rate,
            arguments.clients,
            arguments.value_bytes,
            arguments.seconds,
            arguments.runs,
            arguments.in_flight,
            arguments.dir,
        )
    except ValueError as error:
        sys.stderr.write(f"bench catchup: {error}\n")
        return 2
    return conclude("catchup", functools.partial(measure, absence), show, arguments.output)


@attrs.frozen
class _Run:
    """The steady puts of one run by phase, in seconds of latency; how the follower caught up."""

    phases: dict[str, list[float]]
    catch_up_seconds: float
    by_snapshot: bool


async def measure(absence: Absence) -> dict[str, Any]:
    """Latencies are pooled over all runs. Raises BenchFailed."""
    queue = run_queue()
    async with open_progress(absence.planned_seconds) as progress:
        runs = [await _run(absence, progress) for _ in range(absence.runs)]
    phases = {
        phase: sorted(latency for each in runs for latency in each.phases[phase])
        for phase in PHASES
    }
    if not phases["before"] or not phases["catching up"]:
        raise BenchFailed(
            "no put was due before the follower went, or while it caught up: "
            "measure longer, or more with --rate and --writes"
        )
    results = [{"phase": phase, **_figures(found)} for phase, found in phases.items()]
    p99 = {each["phase"]: each["p99_ms"] for each in results}
    return {
        "members": absence.members,
        "writes": absence.writes,
        "rate": absence.rate,
        "clients": absence.clients,
        "catch_up_seconds": [round(each.catch_up_seconds, 2) for each in runs],
        "by_snapshot": [each.by_snapshot for each in runs],
        "ratio": round(p99["catching up"] / max(p99["before"], 0.001), 2),
        "run_queue": queue,
        "results": results,
    }


def _figures(ordered: Sequence[float]) -> dict[str, Any]:
    return {
        "puts": len(ordered),
        "p50_ms": round(percentile(ordered, 0.5) * 1000, 3),
        "p99_ms": round(percentile(ordered, 0.99) * 1000, 3),
    }


async def _run(absence: Absence, progress: Progress) -> _Run:
    async with contextlib.AsyncExitStack() as stack:
        store = open_store("raftkv", absence.members, parent=absence.directory)
        running = await stack.enter_async_context(store)
        leader = await leader_of(running)
        arguments = ["--endpoint", running.endpoints[leader], "--rate", str(absence.rate)]
        arguments += ["--clients", str(absence.clients)]
        arguments += ["--value-bytes", str(absence.value_bytes)]
        child = await stack.enter_async_context(open_child("bench.steady_load", arguments))
        return await _phases(absence, progress, running, leader, child)


async def _phases(
    absence: Absence, progress: Progress, running: Running, leader: int, child: Child
) -> _Run:
    follower = (leader + 1) % absence.members
    times = Times()
    await child.said()  # it is ready
    await _go(child)
    with progress.step("all members there", absence.seconds), times.phase("before"):
        await trio.sleep(absence.seconds)
    await child.send("pause")
    await trio.sleep(SETTLE_SECONDS)
    had = await _log_end(running, leader)
    running.kill(follower)
    with progress.step("a follower is away", FILL_SECONDS), trio.fail_after(PATIENCE_SECONDS):
        await fill(running, absence.writes, absence.value_bytes, absence.in_flight)
    await _go(child)
    with progress.step("a follower is away", absence.seconds), times.phase("away"):
        await trio.sleep(absence.seconds)
    host = OsHost()
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        with progress.step("it catches up", CATCH_UP_SECONDS), times.phase("catching up"):
            running.start_again(follower)
            with trio.fail_after(PATIENCE_SECONDS):
                status = await _caught_up(kv, running, leader, follower)
    with progress.step("it is back", absence.seconds), times.phase("after"):
        await trio.sleep(absence.seconds)
    await child.send("stop")
    puts: list[tuple[float, float]] = (await child.said())["puts"]
    begin, end = times.of["catching up"]
    return _Run(times.sorted(puts), end - begin, status["raft_first_index"] > had + 1)


async def _go(child: Child) -> None:
    await child.send("go")
    await child.said()


class Times:
    """When each phase began and ended."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.of[name] = begin, time.monotonic()

    def sorted(self, puts: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
        """Latencies of puts, of which we know when they were due, by phase."""
        return {
            name: [latency for due, latency in puts if begin <= due < end]
            for name, (begin, end) in self.of.items()
        }


async def _log_end(running: Running, leader: int) -> int:
    host = OsHost()
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        return int((await kv.status(running.addresses[leader]))["raft_commit"])


async def _caught_up(kv: KvClient, running: Running, leader: int, follower: int) -> dict[str, Any]:
    """Its status, as soon as it has applied what the leader had committed when it was asked."""
    while True:
        committed = (await kv.status(running.addresses[leader]))["raft_commit"]
        with contextlib.suppress(*UNREACHABLE):
            status = await kv.status(running.addresses[follower])
            if status["raft_applied"] >= committed:
                return status
        await trio.sleep(LOOK_AGAIN_SECONDS)


def show(results: dict[str, Any]) -> str:
    seconds = ", ".join(f"{each} s" for each in results["catch_up_seconds"])
    how = "by a snapshot" if any(results["by_snapshot"]) else "from the log"
    return (
        table(COLUMNS, results["results"])
        + f"{results['writes']:,} writes caught up {how} in {seconds}; "
        + f"p99 while catching up / before: {results['ratio']}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.catchup", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
