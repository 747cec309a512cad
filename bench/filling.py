"""Keys that are there before something is measured: each is put once, as fast as that goes."""

from __future__ import annotations

import trio

from bench.dialects import DIALECTS, Refused
from bench.load import CHUNK_BYTES
from bench.processes import BenchFailed, Running
from bench.sources import key_of, values
from bench.stores import leader_of
from raftkv.os_host import OsHost

__all__ = ["fill"]

IN_FLIGHT = 256


async def fill(running: Running, keys: int, value_bytes: int, in_flight: int = IN_FLIGHT) -> None:
    """Keys `key_of(0)` to `key_of(keys - 1)`, with random values. Raises BenchFailed."""
    address = running.addresses[await leader_of(running)]
    stream = await OsHost().net.open_stream(address)
    async with stream:
        try:
            await _fill(stream, running.store, keys, value_bytes, in_flight)
        except (Refused, trio.BrokenResourceError) as error:
            raise BenchFailed(f"could not fill {running.store}: {error}") from error


async def _fill(
    stream: trio.abc.Stream, store: str, keys: int, value_bytes: int, in_flight: int
) -> None:
    content = values(value_bytes, seed=keys)
    rest = (("put", key_of(number), content[number % len(content)]) for number in range(keys))
    dialect = DIALECTS[store]()
    await stream.send_all(dialect.begin())
    free, back, answered = list(range(in_flight)), b"", 0
    while answered < keys:
        asking = list(zip(free, rest, strict=False))
        if asking or back:
            await stream.send_all(back + (dialect.ask(asking) if asking else b""))
        data = await stream.receive_some(CHUNK_BYTES)
        if not data:
            raise Refused("the server closed the connection")
        free, back = dialect.take(bytes(data))
        answered += len(free)
