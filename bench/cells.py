"""One figure of a comparison: so many clients, for so long, against one store. Or its costs.

Owns the load's processes. What a store's members spent is read around the load.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from bench.children import open_child
from bench.latency import merged, quantiles_ms
from bench.load import WARM_UP_SECONDS
from bench.members import read_all
from bench.processes import BenchFailed, Running
from bench.sources import KEY_BYTES, count_of, key_of
from bench.stores import leader_of

__all__ = ["Cell", "LoadOptions", "figures", "load", "run_queue"]

ATTEMPTS = 3
POSITIVE: Any = attrs.validators.gt(0)


@attrs.frozen
class LoadOptions:
    """`everywhere`: ask all members of etcd in turn, not the leader alone (raftkv's clients always
    ask the leader). `processes`: how many make the load, where one would be slower than the store.
    `kill_leader`: in the middle, with SIGKILL; raftkv's only.
    """

    op: str = "put"
    seconds: float = attrs.field(default=10.0, validator=POSITIVE)
    connections: int = attrs.field(default=8, validator=POSITIVE)
    value_bytes: int = attrs.field(default=256, validator=POSITIVE)
    keys: int = attrs.field(default=100_000, validator=POSITIVE)
    key_bytes: int = attrs.field(default=KEY_BYTES, validator=POSITIVE)
    everywhere: bool = False
    processes: int = 1
    kill_leader: bool = False


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
    gap_seconds: float | None
    """From the leader's end to the first put that the next one acknowledged."""


async def load(running: Running, clients: int, options: LoadOptions) -> Cell:
    """Ask with so many clients in all. Raises BenchFailed, also where something was lost."""
    queue = run_queue()
    for attempt in range(1, ATTEMPTS + 1):
        leader = await leader_of(running)
        before = running.cpu_seconds()
        killed_at, summaries = await _generate(running, leader, clients, options)
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
    if options.kill_leader:
        await check_nothing_lost(running, summaries[0]["acknowledged"])
    return Cell(
        running.store,
        len(running.endpoints),
        clients,
        options,
        sum(each["requests"] for each in summaries),
        counts,
        [round(1e6 * max(end - begin, 0) / asked, 1) for begin, end in spent],
        [round(each / 1e6, 1) for each in running.memory_bytes()],
        queue,
        attempt - 1,
        gap(summaries[0]["pauses"], killed_at) if options.kill_leader else None,
    )


def figures(cells: Sequence[Cell]) -> dict[str, Any]:
    """Rounds of one cell together, as the output shows them: requests and latencies are pooled,
    processor time is the mean, memory the most, the failover gap the median."""
    first, rounds = cells[0], len(cells)
    requests, seconds = sum(cell.requests for cell in cells), first.options.seconds * rounds
    by_member = [sum(each) / rounds for each in zip(*(cell.cpu_us for cell in cells), strict=True)]
    memory = [max(each) for each in zip(*(cell.memory_mb for cell in cells), strict=True)]
    gaps = sorted(round(1000 * cell.gap_seconds) for cell in cells if cell.gap_seconds is not None)
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
        **({"gap_ms": gaps[len(gaps) // 2], "gaps_ms": gaps, "lost": 0} if gaps else {}),
    }


async def _generate(
    running: Running, leader: int, clients: int, options: LoadOptions
) -> tuple[float, list[dict[str, Any]]]:
    """The load, in processes of its own: when the leader was killed, and what they found."""
    endpoints = running.endpoints[leader:] + running.endpoints[:leader]
    if not options.kill_leader and (running.store == "raftkv" or not options.everywhere):
        endpoints = endpoints[:1]
    processes = 1 if options.kill_leader else min(options.processes, clients)
    killed_at = 0.0
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(2 * (options.seconds + WARM_UP_SECONDS) + 60))
        children = []
        for number in range(processes):
            share = clients // processes + (number < clients % processes)
            arguments = ["--store", running.store, "--op", options.op, "--seed", str(number)]
            arguments += ["--endpoints", ",".join(endpoints), "--clients", str(share)]
            arguments += ["--seconds", str(options.seconds), "--keys", str(options.keys)]
            arguments += ["--connections", str(max(options.connections // processes, 1))]
            arguments += ["--value-bytes", str(options.value_bytes)]
            arguments += ["--key-bytes", str(options.key_bytes)]
            arguments += ["--follow"] if options.kill_leader else []
            children.append(await stack.enter_async_context(open_child("bench.load", arguments)))
        begun = [(await child.said())["counting_from"] for child in children]
        if options.kill_leader:
            await trio.sleep(begun[0] + options.seconds / 2 - time.monotonic())
            killed_at = await _kill_leader(running)
        summaries = [await child.said() for child in children]
    return killed_at, summaries


async def _kill_leader(running: Running) -> float:
    leader = await leader_of(running)
    running.kill(leader)
    return time.monotonic()


def gap(pauses: Sequence[tuple[float, float]], killed_at: float) -> float:
    """From the kill to the end of the longest pause after it. Raises BenchFailed."""
    after = [(to - begin, to) for begin, to in pauses if to > killed_at]
    if not after:
        raise BenchFailed("nothing was acknowledged after the leader was killed: measure longer")
    return max(after)[1] - killed_at


async def check_nothing_lost(running: Running, acknowledged: dict[str, int]) -> None:
    """Every key counts at least as far as was acknowledged. Raises BenchFailed."""
    stored = await read_all(running, key_of(0)[:6])
    for key, count in acknowledged.items():
        value = stored.get(key.encode())
        if value is None or count_of(value) < count:
            found = "is not there" if value is None else f"is {count_of(value)}"
            raise BenchFailed(f"{running.store} LOST put {count} of {key}: it {found}")


def run_queue() -> float:
    """Processes that wanted to run, over the last minute: others' work shows here."""
    return round(os.getloadavg()[0], 2)
