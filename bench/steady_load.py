"""A load at a steady rate, to see how what else happens disturbs those who write.

Runs as `python -m bench.steady_load`, and obeys lines: `go`, `pause`, `stop`.
Each client has its own connection and its own times at which it puts. Latency counts from the time
at which a put was due, so that a store that hangs for a second shows it in every put that was due
meanwhile, not in one.
"""

from __future__ import annotations

import argparse
import math
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


class Pace:
    """When the clients put: at the same rate, except while it is paused."""

    def __init__(self, clients: int, rate: float) -> None:
        self._interval = clients / rate
        self._offset = 1 / rate
        self._gone_at = 0.0
        self._stopped_at = math.inf
        self._going = trio.Event()

    def go(self) -> None:
        self._gone_at = time.monotonic()
        self._going.set()

    def pause(self) -> None:
        self._going = trio.Event()

    def stop(self) -> None:
        """What was due until now is still put."""
        self._stopped_at = time.monotonic()
        self._going.set()

    async def next_due(self, number: int, last: float) -> float | None:
        """When the client of this number puts next; it is that time, or later. None: no more."""
        await self._going.wait()
        due = last + self._interval
        if due < self._gone_at:  # nothing was due during a pause
            due = self._gone_at + number * self._offset
        if due >= self._stopped_at:
            return None
        await trio.sleep(max(due - time.monotonic(), 0.0))
        return due


async def _put_steadily(
    endpoint: Address, source: Source, number: int, pace: Pace, found: Found
) -> None:
    dialect = DIALECTS["raftkv"]()
    last = 0.0
    async with await OsHost().net.open_stream(endpoint) as stream:
        await stream.send_all(dialect.begin())
        while (due := await pace.next_due(number, last)) is not None:
            last = due
            await stream.send_all(dialect.ask(source.ask([0])))
            answered = False
            while not answered:
                data = await stream.receive_some(CHUNK_BYTES)
                if not data:
                    raise Refused("the server closed the connection")
                answered = bool(dialect.take(bytes(data))[0])
            found.append((due, time.monotonic() - due))


async def _run(endpoint: Address, clients: int, rate: float, value_bytes: int) -> Found:
    found: Found = []
    pace = Pace(clients, rate)
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            source = Source("put", range(number, 10_000, clients), values(value_bytes, 1), number)
            nursery.start_soon(_put_steadily, endpoint, source, number, pace, found)
        tell({"ready": True})
        while (line := await _read_line()) in ("go\n", "pause\n"):
            if line == "go\n":
                pace.go()
                tell({"going": True})
            else:
                pace.pause()
        if line:
            pace.stop()
        else:  # the benchmark is gone
            nursery.cancel_scope.cancel()
    return found


async def _read_line() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


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
