"""Many watchers of one prefix in one process: what they were told, and whether it was all.

Runs as `python -m bench.watch_receiver`, in as many processes as it takes so that receiving is not
what limits. Each watcher is a watch of its own at the server, and each of its pushes is decoded and
checked: as one writer alone writes, and only below the prefix, the next event is always that of the
next revision.

Says `{"ready": revision}` when all watches are there, and takes one line with the last revision;
when every watcher has had that, it tells what it found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import trio

from bench.children import tell
from bench.latency import histogram
from raftkv.host import Address, parse_address
from raftkv.os_host import OsHost
from raftkv.streams import only_error
from raftkv.wire.framing import FrameReader, encode, flatten
from raftkv.wire.protocol import EVENTS, MAX_FRAME_FROM_MEMBER, VERSION, is_error

__all__ = ["Received", "main"]

CHUNK_BYTES = 256 * 1024
HELLO = 1 << 40
SAMPLED = 16
"""One watcher of so many tells its latencies."""


class Unsound(Exception):
    """An event was missing, twice, or out of order; or a watch ended."""


@attrs.define
class Received:
    """Counts of this process; `latencies` in seconds, from before the put until decoded."""

    events: int = 0
    pushes: int = 0
    last_at: float = 0.0
    latencies: list[float] = attrs.field(factory=list)


class Watchers:
    """Those of one connection, each with the revision that it has reached."""

    def __init__(self, count: int, received: Received) -> None:
        self._reached = [0] * count
        self._received = received
        self._created = 0

    @property
    def created(self) -> bool:
        return self._created == len(self._reached)

    @property
    def revision(self) -> int:
        """What every one of them has had."""
        return min(self._reached)

    def requests(self, prefix: bytes) -> list[list[Any]]:
        end = prefix[:-1] + bytes((prefix[-1] + 1,))
        return [[n + 1, "watch", n, prefix, end, 0, 0] for n in range(len(self._reached))]

    def take(self, messages: list[Any]) -> None:
        """Raises Unsound."""
        events = pushes = 0
        for message in messages:
            if message[0]:
                self._reply(message)
                continue
            if message[2] != EVENTS:
                raise Unsound(f"a watch was told {message[2:]}")
            _, numbers, _, revision, pushed = message
            numbers = numbers if type(numbers) is list else [numbers]  # one push for several
            for number in numbers:
                self._advance(number, revision, pushed)
            events += len(pushed) * len(numbers)
            pushes += 1
        if pushes:
            self._received.events += events
            self._received.pushes += pushes
            self._received.last_at = time.monotonic()

    def _advance(self, number: int, revision: int, pushed: list[Any]) -> None:
        expected = self._reached[number]
        for _, (_, _, _, mod_revision, _, _), _ in pushed:
            expected += 1
            if mod_revision != expected:
                raise Unsound(f"revision {mod_revision} came where {expected} was due")
        if expected != revision:
            raise Unsound(f"a push up to revision {revision} ends with {expected}")
        self._reached[number] = expected
        if not number % SAMPLED:
            now = time.monotonic()
            self._received.latencies += [now - float(event[1][1][:20]) for event in pushed]

    def _reply(self, message: list[Any]) -> None:
        request, result = message
        if is_error(result):
            raise Unsound(f"a watch was refused: {result[2]}")
        if request != HELLO:
            self._reached[request - 1] = result[0]
            self._created += 1


class Receiver:
    """All connections of this process, and the revision at which they are done."""

    def __init__(self) -> None:
        self.received = Received()
        self._last_revision: int | None = None
        self._connections: list[Watchers] = []
        self._changed = trio.Event()

    async def run(
        self, endpoints: list[Address], connections: int, watchers: int, prefix: bytes
    ) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(connections):
                share = watchers // connections + (number < watchers % connections)
                endpoint = endpoints[number % len(endpoints)]
                nursery.start_soon(self._listen, endpoint, share, prefix)
            await self._until(lambda: self._all_created(connections))
            tell({"ready": max(each.revision for each in self._connections)})
            line = await trio.to_thread.run_sync(sys.stdin.readline)
            if line:  # else the benchmark is gone
                self._last_revision = int(line)
                await self._until(self._all_done)
            nursery.cancel_scope.cancel()

    def _all_created(self, connections: int) -> bool:
        made = self._connections
        return len(made) == connections and all(each.created for each in made)

    def _all_done(self) -> bool:
        last = self._last_revision
        return last is not None and all(each.revision >= last for each in self._connections)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed = trio.Event()
            await self._changed.wait()

    async def _listen(self, endpoint: Address, count: int, prefix: bytes) -> None:
        reader = FrameReader(MAX_FRAME_FROM_MEMBER)
        watchers = Watchers(count, self.received)
        async with await OsHost().net.open_stream(endpoint) as stream:
            await stream.send_all(encode([[HELLO, "hello", VERSION], *watchers.requests(prefix)]))
            self._connections.append(watchers)
            while True:
                data = await stream.receive_some(CHUNK_BYTES)
                if not data:
                    raise Unsound("a member closed its connection")
                watchers.take(flatten(reader.feed(data)))
                if self._last_revision is not None or not self.received.events:
                    self._changed.set()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watch_receiver", description=__doc__)
    add = parser.add_argument
    add("--endpoints", required=True, metavar="HOST:PORT,...", help="connections go round them")
    add("--connections", type=int, required=True)
    add("--watchers", type=int, required=True, help="of all connections together")
    add("--prefix", required=True)
    arguments = parser.parse_args()
    endpoints = [parse_address(each) for each in arguments.endpoints.split(",")]
    receiver = Receiver()
    try:
        trio.run(
            receiver.run,
            endpoints,
            arguments.connections,
            arguments.watchers,
            arguments.prefix.encode(),
        )
    except BaseExceptionGroup as group:
        error = only_error(group)
        if not isinstance(error, Unsound | OSError):
            raise
        tell({"failed": str(error)})
        return 1
    found = receiver.received
    tell(
        {
            "events": found.events,
            "pushes": found.pushes,
            "last_at": found.last_at,
            "histogram_us": histogram(found.latencies),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
