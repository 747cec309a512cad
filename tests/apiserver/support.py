"""An apiserver on loopback over a memory store, and a small client that speaks raw HTTP.

Others may use it too:

    async with open_test_apiserver() as server:
        async with open_session(server) as session:
            status, obj = await session.call("GET", "/api/v1/namespaces")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import httptools
import orjson
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from k8slite.apiserver import Apiserver, ApiserverConfig, StaticToken, open_apiserver
from k8slite.apiserver.store.base import Store
from raftkv.host import Address
from raftkv.os_host import OsHost

ADMIN = "admin-token"
ALICE = "alice-token"
TOKENS = (
    StaticToken(ADMIN, "admin", "", ("system:masters",)),
    StaticToken(ALICE, "alice", "uid-of-alice", ("devs",)),
)


@lru_cache(maxsize=1)
def signing_key() -> bytes:
    """A private key for service-account tokens (PEM)."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_config(**changes: Any) -> ApiserverConfig:
    """A config for tests: a free loopback port, two tokens, a signing key."""
    settings: dict[str, Any] = {
        "listen": (Address("127.0.0.1", 0),),
        "tokens": TOKENS,
        "service_account_private_key": signing_key(),
        "allow_loopback_endpoints": True,
        **changes,
    }
    return ApiserverConfig(**settings)


@asynccontextmanager
async def open_test_apiserver(
    store: Store | None = None, **changes: Any
) -> AsyncIterator[Apiserver]:
    """An apiserver with its bootstrap objects and the default service account.

    `store` shares a store of this process; `store_config` names another one; else memory.
    """
    if "store_config" in changes:
        changes["store"] = changes.pop("store_config")
    async with open_apiserver(make_config(**changes), OsHost("test"), store) as server:
        async with open_session(server) as session:
            await session.call(
                "POST",
                "/api/v1/namespaces/default/serviceaccounts",
                {"metadata": {"name": "default"}},
            )
        yield server


class Session:
    """One connection; requests one after the other."""

    def __init__(self, stream: trio.abc.Stream, token: str) -> None:
        self.stream = stream
        self.token = token
        self.headers: dict[str, str] = {}
        self.text = b""

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        token: str | None = None,
    ) -> tuple[int, Any]:
        """Status and decoded answer (or its text); `headers` and `text` hold the rest."""
        await self.stream.send_all(
            encode_request(
                method, path, body, content_type, accept, self.token if token is None else token
            )
        )
        answer = Answer()
        while not answer.done:
            data = await self.stream.receive_some(65536)
            assert data, "the server closed the connection"
            answer.feed(bytes(data))
        self.headers, self.text = answer.headers, answer.body
        if answer.headers.get("content-type") == "application/json":
            return answer.status, orjson.loads(answer.body)
        return answer.status, answer.body.decode()


def encode_request(
    method: str, path: str, body: Any, content_type: str, accept: str, token: str
) -> bytes:
    """A request as bytes; a body that is no str or bytes goes as JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Accept: {accept}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    data = b""
    if body is not None:
        data = (
            body
            if isinstance(body, bytes)
            else (body.encode() if isinstance(body, str) else orjson.dumps(body))
        )
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(data)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class Answer:
    """An answer while it comes in."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.started = False
        self.done = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.started = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True


@asynccontextmanager
async def open_session(server: Apiserver, token: str = ADMIN) -> AsyncIterator[Session]:
    """A connection to the server."""
    stream = await trio.open_tcp_stream(server.address.host, server.address.port)
    async with stream:
        yield Session(stream, token)


class Watcher:
    """The events of a watch, one after the other."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._answer = Answer()

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def ended(self) -> bool:
        return self._answer.done

    async def start(self) -> None:
        while not self._answer.started:
            self._answer.feed(bytes(await self._stream.receive_some(65536)))

    async def next(self) -> dict[str, Any]:
        """The next event, as an object with type and object."""
        while b"\n" not in self._answer.body:
            if self._answer.done:
                raise EOFError
            data = await self._stream.receive_some(65536)
            if not data:
                raise EOFError
            self._answer.feed(bytes(data))
        line, _, self._answer.body = self._answer.body.partition(b"\n")
        event: dict[str, Any] = orjson.loads(line)
        return event

    async def brief(self) -> tuple[str, str]:
        """The next event as (type, name)."""
        event = await self.next()
        return event["type"], event["object"]["metadata"].get("name", "")


@asynccontextmanager
async def open_watch(
    server: Apiserver, path: str, *, accept: str = "application/json", token: str = ADMIN
) -> AsyncIterator[Watcher]:
    """A watch; entering means that its head has come."""
    stream = await trio.open_tcp_stream(server.address.host, server.address.port)
    async with stream:
        await stream.send_all(encode_request("GET", path, None, "", accept, token))
        watcher = Watcher(stream)
        with trio.fail_after(10):
            await watcher.start()
        yield watcher


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "busybox"}], **spec},
    }
