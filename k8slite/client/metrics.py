"""Counters of a component in Prometheus' text form, and the small server that shows them.

Owned by one process; plain numbers, changed in place. The server answers GET /metrics, /healthz,
/livez and /readyz, in plain HTTP; it is meant for loopback.
"""

from __future__ import annotations

import bisect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from k8slite.client.background import open_background
from raftkv.host import Address, Host

__all__ = ["Counter", "Gauge", "Histogram", "Metrics", "open_metrics_server"]

REQUEST_BYTES_MAX = 16 * 1024
REQUEST_SECONDS_MAX = 5.0
CONNECTIONS_MAX = 32
Labels = tuple[str, ...]


class Counter:
    """A number for each combination of labels; it only grows."""

    kind = "counter"

    def __init__(self, name: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._names = tuple(labels)
        self._values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        assert len(labels) == len(self._names), self.name
        self._values[labels] = self._values.get(labels, 0) + by

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0)

    def lines(self) -> Iterator[str]:
        for labels, value in sorted(self._values.items()):
            yield f"{self.name}{_braces(self._names, labels)} {value:g}"


class Gauge:
    """Numbers that are read at the moment in which somebody looks."""

    kind = "gauge"

    def __init__(
        self, name: str, labels: Sequence[str], read: Callable[[], Mapping[Labels, float]]
    ) -> None:
        self.name = name
        self._names = tuple(labels)
        self._read = read

    def lines(self) -> Iterator[str]:
        for labels, value in sorted(self._read().items()):
            yield f"{self.name}{_braces(self._names, labels)} {value:g}"


class Histogram:
    """How often an observation was at most each of the bounds, their sum and their number."""

    kind = "histogram"

    def __init__(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self.name = name
        self._names = tuple(labels)
        self._bounds = tuple(bounds)
        self._rows: dict[Labels, list[float]] = {}

    def observe(self, value: float, *labels: str) -> None:
        row = self._rows.get(labels)
        if row is None:
            assert len(labels) == len(self._names), self.name
            row = self._rows[labels] = [0.0] * (len(self._bounds) + 2)
        row[bisect.bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def count(self, *labels: str) -> float:
        return sum(self._rows.get(labels, [0.0])[:-1])

    def lines(self) -> Iterator[str]:
        names = (*self._names, "le")
        for labels, row in sorted(self._rows.items()):
            total = 0.0
            for bound, number in zip((*self._bounds, float("inf")), row[:-1], strict=True):
                total += number
                told = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f"{self.name}_bucket{_braces(names, (*labels, told))} {total:g}"
            yield f"{self.name}_sum{_braces(self._names, labels)} {row[-1]:.6g}"
            yield f"{self.name}_count{_braces(self._names, labels)} {total:g}"


class Metrics:
    """A process's counters, in the order in which they were made."""

    def __init__(self) -> None:
        self._all: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str, labels: Sequence[str] = ()) -> Counter:
        found = self._all.setdefault(name, Counter(name, labels))
        assert isinstance(found, Counter), name
        return found

    def histogram(self, name: str, labels: Sequence[str], bounds: Sequence[float]) -> Histogram:
        found = self._all.setdefault(name, Histogram(name, labels, bounds))
        assert isinstance(found, Histogram), name
        return found

    def gauge(
        self, name: str, labels: Sequence[str], read: Callable[[], Mapping[Labels, float]]
    ) -> None:
        """A later one of the same name replaces the earlier."""
        self._all[name] = Gauge(name, labels, read)

    def text(self) -> str:
        lines = []
        for each in self._all.values():
            found = [*each.lines()]
            if found:
                lines += [f"# TYPE {each.name} {each.kind}", *found]
        return "\n".join(lines) + "\n"


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True))
    return f"{{{pairs}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@asynccontextmanager
async def open_metrics_server(
    host: Host, address: Address, metrics: Metrics
) -> AsyncIterator[Address]:
    """Serve them; yields the address, with the real port where 0 was asked for. Raises OSError."""
    listener = await host.net.listen(address)
    try:
        async with open_background() as nursery:
            nursery.start_soon(_accept, listener.accept, metrics, nursery)
            yield listener.address
    finally:
        await listener.aclose()


async def _accept(accept: Callable[[], object], metrics: Metrics, nursery: trio.Nursery) -> None:
    slots = trio.Semaphore(CONNECTIONS_MAX)
    while True:
        await slots.acquire()
        try:
            stream = await accept()  # type: ignore[misc]  # Listener.accept
        except trio.ClosedResourceError:
            return
        nursery.start_soon(_serve, stream, metrics, slots)


async def _serve(stream: trio.abc.Stream, metrics: Metrics, slots: trio.Semaphore) -> None:
    """One request, one answer, and the end: who reads metrics comes once in a while."""
    try:
        with trio.move_on_after(REQUEST_SECONDS_MAX):
            request = b""
            while b"\r\n\r\n" not in request and len(request) < REQUEST_BYTES_MAX:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                request += chunk
            await stream.send_all(_answer(request, metrics))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
    finally:
        slots.release()
        await trio.aclose_forcefully(stream)


def _answer(request: bytes, metrics: Metrics) -> bytes:
    words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    path = words[1].partition("?")[0] if len(words) == 3 else ""
    status, body = "404 Not Found", "404 page not found\n"
    if words[0] != "GET":
        status, body = "405 Method Not Allowed", "405 method not allowed\n"
    elif path == "/metrics":
        status, body = "200 OK", metrics.text()
    elif path in ("/healthz", "/livez", "/readyz"):
        status, body = "200 OK", "ok"
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data
