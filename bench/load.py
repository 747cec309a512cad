"""A closed-loop load generator: every virtual client has one put in flight, always.

Runs in a process of its own (`python -m bench.load`), so that it doesn't share an interpreter
with what it measures. It speaks the wire protocol directly: a task per client would cost more
than the store does. Each put is a request of its own with its own reply; requests of one
connection that are ready together share a frame, as `raftkv.client` sends them.

Latency is from handing a put to the socket until its reply is decoded. Puts that end while the
load warms up or runs out are not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from raftkv.client import open_client
from raftkv.host import Address, parse_address
from raftkv.os_host import OsHost
from raftkv.wire.framing import FrameReader, encode, flatten
from raftkv.wire.protocol import MAX_FRAME_FROM_MEMBER, VERSION, is_error

__all__ = ["Load", "generate", "percentile"]

CHUNK_BYTES = 64 * 1024
WARM_UP_SECONDS = 1.0


@attrs.define
class Load:
    """What was measured. `latencies` in seconds, in order of completion; `puts_in_all` counts those
    of the warm-up too."""

    clients: int
    seconds: float
    latencies: list[float] = attrs.field(factory=list)
    puts_in_all: int = 0
    errors: list[str] = attrs.field(factory=list)
    counting_from: float = 0.0
    counting_to: float = 0.0

    def summary(self) -> dict[str, Any]:
        ordered = sorted(self.latencies)
        return {
            "clients": self.clients,
            "seconds": self.seconds,
            "puts": len(ordered),
            "puts_in_all": self.puts_in_all,
            "put_per_second": round(len(ordered) / self.seconds, 1),
            "p50_ms": round(percentile(ordered, 0.50) * 1000, 3),
            "p90_ms": round(percentile(ordered, 0.90) * 1000, 3),
            "p99_ms": round(percentile(ordered, 0.99) * 1000, 3),
            "errors": self.errors[:3],
        }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of the sorted values do not exceed; 0 without values."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def generate(
    leader: Address,
    *,
    clients: int,
    connections: int,
    seconds: float,
    value_bytes: int,
    keys: int,
    seed: int,
) -> Load:
    """Put as fast as answers come, for `seconds` after a warm-up."""
    load = Load(clients, seconds)
    rng = random.Random(seed)
    values = [rng.randbytes(value_bytes) for _ in range(64)]
    connections = min(connections, clients)
    started = trio.current_time()
    load.counting_from = started + WARM_UP_SECONDS
    load.counting_to = load.counting_from + seconds
    async with trio.open_nursery() as nursery:
        for number in range(connections):
            share = clients // connections + (number < clients % connections)
            nursery.start_soon(_drive, leader, number, share, values, keys, load)
    return load


async def _drive(
    leader: Address, number: int, share: int, values: list[bytes], keys: int, load: Load
) -> None:
    """One connection with its share of the virtual clients."""
    stream = await OsHost().net.open_stream(leader)
    reader = FrameReader(MAX_FRAME_FROM_MEMBER)
    now = trio.current_time
    sent_at = [0.0] * share
    sequence = number * 7919
    latencies, counting_from, counting_to = load.latencies, load.counting_from, load.counting_to
    async with stream:
        await stream.send_all(encode([[1 << 40, "hello", VERSION]]))
        ready = list(range(share))
        while True:
            moment = now()
            requests = []
            for client in ready:
                sequence += 1
                key = b"bench/%08d" % (sequence * 8 % keys + number)
                value = values[sequence & 63]
                requests.append([client + 1, "put", key, value, 0, False])
                sent_at[client] = moment
            load.puts_in_all += len(requests)
            if requests:
                await stream.send_all(encode(requests))
            data = await stream.receive_some(CHUNK_BYTES)
            if not data:
                load.errors.append("the member closed the connection")
                return
            moment = now()
            ready = []
            for request_id, result in flatten(reader.feed(data)):
                if is_error(result):
                    load.errors.append(str(result))
                    return
                if request_id > share:
                    continue  # the answer to hello
                client = request_id - 1
                ready.append(client)
                if counting_from <= moment < counting_to:
                    latencies.append(moment - sent_at[client])
            if moment >= counting_to:
                return


async def find_leader(endpoints: Sequence[Address]) -> Address:
    """Where the leader serves clients, as soon as there's one."""
    host = OsHost()
    async with open_client(endpoints, host.net, rng=host.rng) as kv:
        await kv.put(b"bench/begin", b"")
        for endpoint in endpoints:
            if (await kv.status(endpoint))["role"] == "leader":
                return endpoint
    raise RuntimeError("no member leads")


async def _main(arguments: argparse.Namespace) -> dict[str, Any]:
    with trio.fail_after(30):
        leader = await find_leader([parse_address(each) for each in arguments.endpoints.split(",")])
    load = await generate(
        leader,
        clients=arguments.clients,
        connections=arguments.connections,
        seconds=arguments.seconds,
        value_bytes=arguments.value_bytes,
        keys=arguments.keys,
        seed=arguments.seed,
    )
    return load.summary()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--endpoints", required=True, metavar="HOST:PORT,...")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--value-bytes", type=int, default=256)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    sys.stdout.write(json.dumps(trio.run(_main, parser.parse_args())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
