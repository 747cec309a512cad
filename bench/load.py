"""A closed-loop load generator: every virtual client has one request in flight, always.

Runs in a process of its own (`python -m bench.load`), so that it doesn't share an interpreter
with what it measures. It speaks the protocols directly (`bench.dialects`): a task per client would
cost more than the store does. Each put or get is a request of its own with its own reply.

Latency is from handing a request to the socket until its reply is decoded. Requests that end while
the load warms up or runs out are not counted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from bench.children import tell
from bench.dialects import DIALECTS, Refused
from bench.latency import histogram
from bench.sources import KEY_BYTES, CheckedSource, Source, values
from raftkv.host import Address, parse_address
from raftkv.os_host import OsHost

__all__ = ["Load", "Plan", "generate", "pauses"]

CHUNK_BYTES = 64 * 1024
WARM_UP_SECONDS = 1.0
RETRY_SECONDS = 0.002
PAUSE_SECONDS = 0.002


@attrs.frozen
class Plan:
    """What to ask of whom. `endpoints`: connections go round over them. `follow`: a connection that
    is lost or refused goes on with the next one, and what was acknowledged is told at the end."""

    store: str
    op: str
    endpoints: Sequence[Address]
    clients: int
    connections: int
    seconds: float
    value_bytes: int
    keys: int
    seed: int
    follow: bool = False
    key_bytes: int = KEY_BYTES


@attrs.define
class Load:
    """What was measured. `latencies` in seconds, in order of completion; `asked` counts the
    requests of the warm-up too; `moments`: when answers came, if somebody may be killed."""

    plan: Plan
    counting_from: float
    latencies: list[float] = attrs.field(factory=list)
    asked: int = 0
    errors: list[str] = attrs.field(factory=list)
    moments: list[float] = attrs.field(factory=list)
    acknowledged: dict[bytes, int] = attrs.field(factory=dict)

    @property
    def counting_to(self) -> float:
        return self.counting_from + self.plan.seconds

    def summary(self) -> dict[str, Any]:
        return {
            "requests": len(self.latencies),
            "requests_in_all": self.asked,
            "errors": self.errors[:3],
            "histogram_us": histogram(self.latencies),
            "pauses": pauses(self.moments),
            "acknowledged": {key.decode(): count for key, count in self.acknowledged.items()},
        }


def pauses(moments: Sequence[float]) -> list[tuple[float, float]]:
    """From when to when nothing was answered, of at least `PAUSE_SECONDS`."""
    return [
        (begin, end)
        for begin, end in itertools.pairwise(sorted(moments))
        if end - begin >= PAUSE_SECONDS
    ]


async def generate(load: Load) -> None:
    """Ask as fast as answers come, until the load's time is over."""
    plan = load.plan
    content = values(plan.value_bytes, plan.seed) if plan.op == "put" else [b""]
    connections = min(plan.connections, plan.clients)
    async with trio.open_nursery() as nursery:
        for number in range(connections):
            share = plan.clients // connections + (number < plan.clients % connections)
            keys = range(number, plan.keys, connections)
            if plan.follow:
                checked = CheckedSource(keys, plan.value_bytes, load.acknowledged, load.moments)
                nursery.start_soon(_follow, share, checked, load)
            else:
                source = Source(plan.op, keys, content, number, plan.key_bytes)
                endpoint = plan.endpoints[number % len(plan.endpoints)]
                nursery.start_soon(_drive, endpoint, share, source, load)


async def _drive(endpoint: Address, share: int, source: Source, load: Load) -> None:
    try:
        await _converse(endpoint, share, source, load)
    except (Refused, trio.BrokenResourceError) as error:
        load.errors.append(str(error))


async def _follow(share: int, source: Source, load: Load) -> None:
    """From member to member until one answers, as long as the load lasts; first to the leader."""
    members = itertools.cycle(load.plan.endpoints)
    with trio.move_on_after(load.counting_to - time.monotonic()):
        while True:
            try:
                await _converse(next(members), share, source, load)
            except (Refused, trio.BrokenResourceError, OSError):
                await trio.sleep(RETRY_SECONDS)


async def _converse(endpoint: Address, share: int, source: Source, load: Load) -> None:
    """One connection with its share of the virtual clients, until the load's time is over."""
    now = time.monotonic
    latencies, counting_from, counting_to = load.latencies, load.counting_from, load.counting_to
    sent_at = [0.0] * share
    ready: list[int] = list(range(share))
    dialect = DIALECTS[load.plan.store]()
    back = dialect.begin()
    async with await OsHost().net.open_stream(endpoint) as stream:
        while True:
            if ready or back:
                moment = now()
                for client in ready:
                    sent_at[client] = moment
                load.asked += len(ready)
                await stream.send_all(back + (dialect.ask(source.ask(ready)) if ready else b""))
            data = await stream.receive_some(CHUNK_BYTES)
            if not data:
                raise Refused("the server closed the connection")
            moment = now()
            ready, back = dialect.take(bytes(data))
            source.answered(ready, moment)
            if counting_from <= moment < counting_to:
                latencies.extend([moment - sent_at[client] for client in ready])
            elif moment >= counting_to:
                return


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    add = parser.add_argument
    add("--store", choices=sorted(DIALECTS), default="raftkv")
    add("--op", choices=("put", "get"), default="put")
    add("--endpoints", required=True, metavar="HOST:PORT,...", help="the leader's, or several")
    add("--clients", type=int, default=64)
    add("--connections", type=int, default=8)
    add("--seconds", type=float, default=10.0)
    add("--value-bytes", type=int, default=256)
    add("--key-bytes", type=int, default=KEY_BYTES)
    add("--keys", type=int, default=100_000)
    add("--seed", type=int, default=1)
    add("--follow", action="store_true", help="when a member is lost, go on with the next one")
    arguments = vars(parser.parse_args())
    endpoints = [parse_address(each) for each in arguments.pop("endpoints").split(",")]
    plan = Plan(endpoints=endpoints, **arguments)
    load = Load(plan, time.monotonic() + WARM_UP_SECONDS)
    tell({"counting_from": load.counting_from})
    trio.run(generate, load)
    tell(load.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
