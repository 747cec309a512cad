"""A closed-loop load generator for an apiserver: HTTP/1.1 over TLS, many connections, one thread.

Runs in a process of its own (`python -m bench.api_load`), driven by lines of JSON on its standard
input: one run a line, one answer a line. It works on non-blocking sockets with epoll, because a
task and a parser per client would cost more than what is measured.
"""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["main", "percentile"]

CHUNK = 256 * 1024
WARM_UP_SECONDS = 1.0
DRAIN_SECONDS = 20.0
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
NUMBER = re.compile(rb'"name":"w-\d+-(\d+)"')


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that `share` of the sorted values do not exceed; 0 without values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Client:
    """One connection: a request out, its answer in."""

    def __init__(self, target: dict[str, Any], context: ssl.SSLContext) -> None:
        raw = socket.create_connection((target["host"], target["port"]))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(raw, server_hostname=target["host"])
        self.sock.setblocking(False)
        self.started = 0.0
        self.received: list[bytes] = []
        self.missing = -1
        self.state = 0
        self._out = memoryview(b"")

    def send(self, data: bytes) -> None:
        self.started = time.perf_counter()
        self.received = []
        self.missing = -1
        self._out = memoryview(data)
        self.flush()

    def flush(self) -> None:
        while self._out:
            try:
                self._out = self._out[self.sock.send(self._out) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select((), (self.sock,), (), 0.1)

    def read(self) -> bytes | None:
        """Everything there is to read; None at the end of the connection."""
        parts = []
        while True:
            try:
                data = self.sock.recv(CHUNK)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not data:
                return None
            parts.append(data)
            if len(data) < 16384 and not self.sock.pending():
                break
        return b"".join(parts)

    def answered(self) -> bool:
        """Read on; is the answer complete?"""
        data = self.read()
        if data is None:
            raise ConnectionError("the server closed a connection")
        if not data:
            return False
        self.received.append(data)
        if self.missing < 0:
            head, end, _ = b"".join(self.received).partition(b"\r\n\r\n")
            if not end:
                return False
            found = LENGTH.search(head)
            if found is None:
                raise ConnectionError(f"no length in {head!r}")
            self.missing = len(head) + 4 + int(found[1]) - sum(map(len, self.received))
        else:
            self.missing -= len(data)
        return self.missing <= 0

    def status(self) -> int:
        return int(self.received[0][9:12])

    def body(self) -> bytes:
        return b"".join(self.received).partition(b"\r\n\r\n")[2]


Next = Callable[[Client, int], bytes | None]
"""The next request of a client whose last answer is in; None ends the run for it."""


def closed_loop(clients: list[Client], next_request: Next, seconds: float) -> dict[str, Any]:
    """Keep one request of each client in flight for so long; figures without the warm-up."""
    poll = select.epoll()
    by_file = {client.sock.fileno(): client for client in clients}
    for number in by_file:
        poll.register(number, select.EPOLLIN)
    latencies: list[float] = []
    errors: dict[int, int] = {}
    begin = time.perf_counter()
    count_from, end = begin + WARM_UP_SECONDS, begin + WARM_UP_SECONDS + seconds
    for i, client in enumerate(clients):
        request = next_request(client, i)
        assert request is not None
        client.send(request)
    waiting = len(clients)
    sent = len(clients)
    while waiting:
        for number, _ in poll.poll(5):
            client = by_file[number]
            if not client.answered():
                continue
            now = time.perf_counter()
            status = client.status()
            if status >= 300:
                errors[status] = errors.get(status, 0) + 1
            elif count_from <= client.started and now <= end:
                latencies.append(now - client.started)
            request = next_request(client, sent) if now < end else None
            if request is None:
                waiting -= 1
                continue
            sent += 1
            client.send(request)
    poll.close()
    return {**summary(latencies, seconds), "errors": errors, "requests": sent}


def summary(latencies: list[float], seconds: float) -> dict[str, Any]:
    latencies.sort()
    return {
        "per_second": round(len(latencies) / seconds, 1),
        "p50_ms": round(percentile(latencies, 0.50) * 1000, 2),
        "p99_ms": round(percentile(latencies, 0.99) * 1000, 2),
    }


class Load:
    """The runs."""

    def __init__(self, target: dict[str, Any]) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target["ca"])
        self._pods = "/api/v1/namespaces/bench/pods"
        self._created = 0

    def _clients(self, count: int) -> list[Client]:
        return [Client(self._target, self._context) for _ in range(count)]

    def _request(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\n"
            f"Authorization: Bearer {self._target['token']}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _create(self, prefix: str, number: int) -> bytes:
        return self._request("POST", self._pods, pod(f"{prefix}-{number}"))

    def once(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A single request: its status."""
        client = self._clients(1)[0]
        client.send(self._request(method, path, b"" if body is None else json.dumps(body).encode()))
        while not client.answered():
            select.select((client.sock,), (), (), 1)
        return {"status": client.status(), "bytes": len(client.body())}

    def create(self, clients: int, seconds: float, prefix: str) -> dict[str, Any]:
        return closed_loop(self._clients(clients), lambda _, n: self._create(prefix, n), seconds)

    def fill(self, count: int, prefix: str) -> dict[str, Any]:
        """Exactly so many pods."""
        return closed_loop(
            self._clients(32),
            lambda _, n: self._create(prefix, n) if n < count else None,
            3600,
        )

    def get(self, clients: int, seconds: float, prefix: str, count: int) -> dict[str, Any]:
        requests = [self._request("GET", f"{self._pods}/{prefix}-{n}") for n in range(count)]
        return closed_loop(self._clients(clients), lambda _, n: requests[n % count], seconds)

    def get_put(self, clients: int, seconds: float, prefix: str) -> dict[str, Any]:
        """Each client has a pod of its own: it is read, a label is changed, it is written."""
        own: dict[Client, int] = {}

        def turn(client: Client, number: int) -> bytes:
            path = f"{self._pods}/{prefix}-{own.setdefault(client, number)}"
            client.state += 1
            if client.state % 2:
                return self._request("GET", path)
            obj = json.loads(client.body())
            obj["metadata"].setdefault("labels", {})["turn"] = str(client.state)
            return self._request("PUT", path, json.dumps(obj).encode())

        found = closed_loop(self._clients(clients), turn, seconds)
        return {**found, "per_second": found["per_second"] / 2}

    def lists(self, clients: int, seconds: float) -> dict[str, Any]:
        request = self._request("GET", f"{self._pods}?resourceVersion=0")
        return closed_loop(self._clients(clients), lambda _, n: request, seconds)

    def watch(self, watchers: int, seconds: float, prefix: str, version: str) -> dict[str, Any]:
        """One writer creates pods, one after the other; all watchers see each of them."""
        poll = select.epoll()
        path = f"{self._pods}?watch=1&resourceVersion={version}"
        watching = {client.sock.fileno(): client for client in self._clients(watchers)}
        for number, client in watching.items():
            client.send(self._request("GET", path))
            poll.register(number, select.EPOLLIN)
        writer = self._clients(1)[0]
        poll.register(writer.sock.fileno(), select.EPOLLIN)
        sent: list[float] = []
        seen = dict.fromkeys(watching, 0)
        lasts = dict.fromkeys(watching, -1)
        tails = dict.fromkeys(watching, b"")
        latencies: list[float] = []
        begin = time.perf_counter()
        end = begin + seconds
        sent.append(begin)
        writer.send(self._create(prefix, 0))
        writing = True
        last_seen = begin
        while writing or min(seen.values()) < len(sent):
            ready = poll.poll(1)
            now = time.perf_counter()
            if now > end + DRAIN_SECONDS:
                break
            for number, _ in ready:
                known = watching.get(number)
                if known is None:
                    if writer.answered():
                        writing = now < end
                        if writing:
                            sent.append(time.perf_counter())
                            writer.send(self._create(prefix, len(sent) - 1))
                    continue
                data = known.read()
                if data is None:
                    raise ConnectionError("a watch was closed")
                data = tails[number] + data
                for found in NUMBER.finditer(data):
                    at = int(found[1])
                    if at > lasts[number]:
                        lasts[number] = at
                        seen[number] += 1
                        latencies.append(now - sent[at])
                        last_seen = now
                tails[number] = data[-200:]
        poll.close()
        for client in watching.values():
            client.sock.close()
        figures = summary(latencies, last_seen - begin)
        return {
            **figures,
            "writes": len(sent),
            "events": len(latencies),
            "missing": len(sent) * watchers - len(latencies),
        }


def pod(name: str) -> bytes:
    """A small pod, as a client sends it."""
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}
    container = {
        "name": "main",
        "image": "registry.example.org/team/app:1.2.3",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "MODE", "value": "production"}],
        "resources": resources,
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "bench", "tier": "web"}},
            "spec": {"containers": [container]},
        }
    ).encode()


def main() -> int:
    """Serve runs until the input ends."""
    load = Load(json.loads(sys.argv[1]))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        result = getattr(load, name)(**arguments)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
