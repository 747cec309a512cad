"""A closed-loop load generator: every virtual client has one request in flight, always.

Runs in a process of its own (`python -m bench.load`), so that it doesn't share an interpreter
with what it measures. It speaks the protocols directly (`bench.dialects`): a task per client would
cost more than the store does. Each put or get is a request of its own with its own reply.

Latency is from handing a request to the socket until its reply is decoded. Requests that end while
the load warms up or runs out are not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from bench.dialects import DIALECTS, Dialect, Refused, Request
from bench.latency import histogram, quantiles_ms
from raftkv.host import Address, parse_address
from raftkv.os_host import OsHost

__all__ = ["Load", "Plan", "generate", "key_of"]

CHUNK_BYTES = 64 * 1024
WARM_UP_SECONDS = 1.0
VALUES = 64
"""So many different values, over and over: random bytes for each put would cost too much."""


@attrs.frozen
class Plan:
    """What to ask of whom. `endpoints`: connections go round over them."""

    store: str
    op: str
    endpoints: Sequence[Address]
    clients: int
    connections: int
    seconds: float
    value_bytes: int
    keys: int
    seed: int


@attrs.define
class Load:
    """What was measured. `latencies` in seconds, in order of completion; `asked` counts the
    requests of the warm-up too."""

    plan: Plan
    latencies: list[float] = attrs.field(factory=list)
    asked: int = 0
    errors: list[str] = attrs.field(factory=list)
    counting_from: float = 0.0
    counting_to: float = 0.0

    def summary(self) -> dict[str, Any]:
        counts = histogram(self.latencies)
        return {
            "requests": len(self.latencies),
            "requests_in_all": self.asked,
            "per_second": round(len(self.latencies) / self.plan.seconds, 1),
            **quantiles_ms(counts),
            "errors": self.errors[:3],
            "histogram_us": counts,
        }


def key_of(number: int) -> bytes:
    return b"bench/%08d" % number


class Source:
    """The requests of one connection: its share of the keys, one after the other."""

    def __init__(self, plan: Plan, number: int, connections: int, values: list[bytes]) -> None:
        self._op = plan.op
        self._keys = range(number, plan.keys, connections)
        self._values = values if plan.op == "put" else [b""]
        self._next = number * 7919  # connections don't walk through the keys side by side

    def request(self) -> Request:
        self._next += 1
        key = self._keys[self._next % len(self._keys)]
        return self._op, key_of(key), self._values[self._next % len(self._values)]


async def generate(plan: Plan) -> Load:
    """Ask as fast as answers come, for `seconds` after a warm-up."""
    load = Load(plan)
    rng = random.Random(plan.seed)
    values = [rng.randbytes(plan.value_bytes) for _ in range(VALUES)]
    connections = min(plan.connections, plan.clients)
    load.counting_from = time.monotonic() + WARM_UP_SECONDS
    load.counting_to = load.counting_from + plan.seconds
    async with trio.open_nursery() as nursery:
        for number in range(connections):
            share = plan.clients // connections + (number < plan.clients % connections)
            source = Source(plan, number, connections, values)
            endpoint = plan.endpoints[number % len(plan.endpoints)]
            nursery.start_soon(_drive, endpoint, share, source, load)
    return load


async def _drive(endpoint: Address, share: int, source: Source, load: Load) -> None:
    """One connection with its share of the virtual clients."""
    stream = await OsHost().net.open_stream(endpoint)
    dialect = DIALECTS[load.plan.store]()
    async with stream:
        await stream.send_all(dialect.begin())
        try:
            await _converse(stream, dialect, share, source, load)
        except (Refused, trio.BrokenResourceError) as error:
            load.errors.append(str(error))


async def _converse(
    stream: trio.abc.Stream, dialect: Dialect, share: int, source: Source, load: Load
) -> None:
    now, request = time.monotonic, source.request
    latencies, counting_from, counting_to = load.latencies, load.counting_from, load.counting_to
    sent_at = [0.0] * share
    ready: list[int] = list(range(share))
    back = b""
    while True:
        if ready or back:
            moment = now()
            for client in ready:
                sent_at[client] = moment
            load.asked += len(ready)
            asked = dialect.ask([(client, request()) for client in ready]) if ready else b""
            await stream.send_all(back + asked)
        data = await stream.receive_some(CHUNK_BYTES)
        if not data:
            raise Refused("the server closed the connection")
        moment = now()
        ready, back = dialect.take(bytes(data))
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
    add("--keys", type=int, default=100_000)
    add("--seed", type=int, default=1)
    arguments = vars(parser.parse_args())
    endpoints = [parse_address(each) for each in arguments.pop("endpoints").split(",")]
    load = trio.run(generate, Plan(endpoints=endpoints, **arguments))
    sys.stdout.write(json.dumps(load.summary()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
