"""One figure of a comparison: so many clients, for so long, against one store. Or its costs.

Owns the load's processes. What a store's members spent is read around the load.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from bench.latency import merged, quantiles_ms
from bench.load import WARM_UP_SECONDS
from bench.processes import BenchFailed, Running, environment, last_line
from bench.stores import leader_of

__all__ = ["Cell", "LoadOptions", "figures", "load", "run_queue"]

ATTEMPTS = 3


@attrs.frozen
class LoadOptions:
    """`everywhere`: ask all members of etcd in turn, not the leader alone (raftkv's clients always
    ask the leader). `processes`: how many make the load, where one would be slower than the store.
    """

    op: str = "put"
    seconds: float = 10.0
    connections: int = 8
    value_bytes: int = 256
    keys: int = 100_000
    everywhere: bool = False
    processes: int = 1


@attrs.frozen
class Cell:
    """What one load found. `cpu_us`: of each member, for one request; `run_queue`: before it."""

    store: str
    members: int
    clients: int
    options: LoadOptions
    requests: int
    histogram_us: dict[int, int]
    cpu_us: list[float]
    memory_mb: list[float]
    run_queue: float
    repeated: int
    """How often it was begun anew because the leader changed under it: too much else runs."""


async def load(running: Running, clients: int, options: LoadOptions) -> Cell:
    """Ask with so many clients in all. Raises BenchFailed."""
    queue = run_queue()
    for attempt in range(1, ATTEMPTS + 1):
        endpoints = running.endpoints
        if running.store == "raftkv" or not options.everywhere:
            endpoints = [endpoints[await leader_of(running)]]
        before = running.cpu_seconds()
        summaries = await _generate(running.store, endpoints, clients, options)
        errors = [error for each in summaries for error in each["errors"]]
        if not errors:
            break
        if attempt == ATTEMPTS:
            raise BenchFailed(f"requests to {running.store} failed: {errors[0]}")
    asked = max(sum(each["requests_in_all"] for each in summaries), 1)
    spent = zip(before, running.cpu_seconds(), strict=True)
    counts = merged(
        {int(value): count for value, count in each["histogram_us"].items()} for each in summaries
    )
    return Cell(
        running.store,
        len(running.endpoints),
        clients,
        options,
        sum(each["requests"] for each in summaries),
        counts,
        [round(1e6 * (end - begin) / asked, 1) for begin, end in spent],
        [round(each / 1e6, 1) for each in running.memory_bytes()],
        queue,
        attempt - 1,
    )


def figures(cells: Sequence[Cell]) -> dict[str, Any]:
    """Rounds of one cell together, as the output shows them: requests and latencies are pooled,
    processor time is the mean, memory the most."""
    first, rounds = cells[0], len(cells)
    requests, seconds = sum(cell.requests for cell in cells), first.options.seconds * rounds
    by_member = [sum(each) / rounds for each in zip(*(cell.cpu_us for cell in cells), strict=True)]
    memory = [max(each) for each in zip(*(cell.memory_mb for cell in cells), strict=True)]
    return {
        "store": first.store,
        "members": first.members,
        "clients": first.clients,
        "op": first.options.op,
        "value_bytes": first.options.value_bytes,
        "seconds": seconds,
        "requests": requests,
        "per_second": round(requests / seconds, 1),
        **quantiles_ms(merged(cell.histogram_us for cell in cells)),
        "cpu_us": round(sum(by_member), 1),
        "cpu_us_by_member": [round(each, 1) for each in by_member],
        "memory_mb": max(memory),
        "memory_mb_by_member": memory,
        "per_second_by_round": [round(cell.requests * rounds / seconds, 1) for cell in cells],
        "run_queue": max(cell.run_queue for cell in cells),
        "repeated": sum(cell.repeated for cell in cells),
    }


async def _generate(
    store: str, endpoints: list[str], clients: int, options: LoadOptions
) -> list[dict[str, Any]]:
    """The load, in processes of its own; they are ended with us."""
    summaries: list[dict[str, Any]] = []
    failures: list[str] = []
    processes = min(options.processes, clients)

    async def one(number: int) -> None:
        share = clients // processes + (number < clients % processes)
        command = [sys.executable, "-m", "bench.load", "--store", store, "--op", options.op]
        command += ["--endpoints", ",".join(endpoints), "--clients", str(share)]
        command += ["--seconds", str(options.seconds), "--keys", str(options.keys)]
        command += ["--connections", str(max(options.connections // processes, 1))]
        command += ["--value-bytes", str(options.value_bytes), "--seed", str(number)]
        ended = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment()
        )
        if ended.returncode:
            failures.append(last_line(ended.stderr))
        else:
            summaries.append(json.loads(ended.stdout))

    with trio.fail_after(2 * (options.seconds + WARM_UP_SECONDS) + 60):
        async with trio.open_nursery() as nursery:
            for number in range(processes):
                nursery.start_soon(one, number)
    if failures:
        raise BenchFailed(f"the load failed: {failures[0]}")
    return summaries


def run_queue() -> float:
    """Processes that wanted to run, over the last minute: others' work shows here."""
    return round(os.getloadavg()[0], 2)
