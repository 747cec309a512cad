"""A load at a steady rate, to see how what else happens disturbs those who write.

Runs as `python -m bench.steady_load` until it gets a line. Each client has its own connection and
its own times at which it puts; latency counts from the time at which a put was due, so that a store
that hangs for a second shows it in every put that was due meanwhile, not in one.
"""

from __future__ import annotations

import argparse
import sys
import time

import trio

from bench.children import tell
from bench.dialects import DIALECTS, Refused
from bench.load import CHUNK_BYTES
from bench.sources import Source, values
from raftkv.host import Address, parse_address
from raftkv.os_host import OsHost
from raftkv.streams import only_error

__all__ = ["main"]

Found = list[tuple[float, float]]
"""When a put was due (by the machine's monotonic clock) and its latency, in seconds."""


async def _put_steadily(
    endpoint: Address, source: Source, first_due: float, interval: float, found: Found
) -> None:
    dialect = DIALECTS["raftkv"]()
    due = first_due
    async with await OsHost().net.open_stream(endpoint) as stream:
        await stream.send_all(dialect.begin())
        while True:
            await trio.sleep(due - time.monotonic() if due > time.monotonic() else 0)
            await stream.send_all(dialect.ask(source.ask([0])))
            answered = False
            while not answered:
                data = await stream.receive_some(CHUNK_BYTES)
                if not data:
                    raise Refused("the server closed the connection")
                answered = bool(dialect.take(bytes(data))[0])
            found.append((due, time.monotonic() - due))
            due += interval


async def _run(endpoint: Address, clients: int, rate: float, value_bytes: int) -> Found:
    found: Found = []
    interval = clients / rate
    begin = time.monotonic() + 0.1
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            source = Source("put", range(number, 10_000, clients), values(value_bytes, 1), number)
            due = begin + number / rate
            nursery.start_soon(_put_steadily, endpoint, source, due, interval, found)
        tell({"begun": begin})
        await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steady_load", description=__doc__)
    add = parser.add_argument
    add("--endpoint", required=True, metavar="HOST:PORT", help="the leader's")
    add("--clients", type=int, default=16)
    add("--rate", type=float, default=1000.0, help="puts per second in all")
    add("--value-bytes", type=int, default=256)
    arguments = parser.parse_args()
    try:
        found = trio.run(
            _run,
            parse_address(arguments.endpoint),
            arguments.clients,
            arguments.rate,
            arguments.value_bytes,
        )
    except BaseExceptionGroup as group:
        error = only_error(group)
        if not isinstance(error, Refused | OSError | trio.BrokenResourceError):
            raise
        tell({"failed": f"the steady load ended: {error}"})
        return 1
    tell({"puts": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
