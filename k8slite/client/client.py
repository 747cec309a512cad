"""The REST client: objects in, objects out, over a bounded pool of HTTP/1.1 connections.

Owns what may be repeated. A request that certainly was not executed (no connection, an
unfinished send, an answer of 429) is repeated on the next endpoint, whatever its method; reads
are repeated on any failure; a write whose answer was lost raises UnknownOutcome at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any
from urllib.parse import urlencode

import orjson
import trio
from attrs import frozen

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, name, namespace
from k8slite.api.status import ApiError, from_status
from k8slite.client.api import ObjList
from k8slite.client.errors import UnknownOutcome, Unreachable
from k8slite.client.http import Connection, ConnectionLost, Response, encode_request
from k8slite.client.pool import Pool
from k8slite.client.watch import Stream, Watch
from raftkv.host import Address, Host

__all__ = ["Client", "ClientConfig", "error_of", "open_client", "with_query"]

JSON = "application/json"
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
RETRY_ROUNDS_MAX = 3
RETRY_SECONDS_MIN = 0.05
RETRY_AFTER_SECONDS_MAX = 5.0
STREAMS_MAX = 256
"""Open watches and followed logs of one client; further ones wait."""
SLOW_SECONDS = 1.0
"""A caller who gave up after this long without an answer makes us try another endpoint."""
TRANSIENT_STATUSES = (502, 503, 504)
REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@frozen(kw_only=True)
class ClientConfig:
    """Where the apiservers are and who we are.

    `patience_seconds`: how long an accepted request may stay without any answer before its
    connection counts as dead. `silence_seconds`: the same for a watch, which hears at least the
    server's bookmarks.
    """

    endpoints: tuple[Address, ...]
    tls: SSLContext | None = None
    token: str | None = None
    user_agent: str = "k8slite"
    connections_max: int = 32
    patience_seconds: float = 30.0
    silence_seconds: float = 90.0


class Client:
    """See `k8slite.client.api.Api` for the calls and their errors."""

    def __init__(self, config: ClientConfig, host: Host) -> None:
        self._config = config
        self._rng = host.rng
        self._pool = Pool(
            host.net,
            config.endpoints,
            config.tls,
            host.rng,
            connections_max=config.connections_max,
        )
        self._streams = Pool(
            host.net, config.endpoints, config.tls, host.rng, connections_max=STREAMS_MAX
        )

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._streams.aclose()

    async def get(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        resource_version: str | None = None,
    ) -> Obj:
        path = kind.path(namespace, name, subresource)
        return await self._objects("GET", with_query(path, {"resourceVersion": resource_version}))

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str | None = None,
    ) -> ObjList:
        query: dict[str, str | int | None] = {
            "labelSelector": labels,
            "fieldSelector": fields,
            "limit": limit,
            "continue": continue_,
            "resourceVersion": resource_version,
        }
        page = await self._objects("GET", with_query(kind.path(namespace), query))
        items = page.get("items") or []
        for item in items:  # lists leave out what all their items share
            item.setdefault("apiVersion", kind.api_version)
            item.setdefault("kind", kind.kind)
        metadata = page["metadata"]
        return ObjList(items, metadata.get("resourceVersion", ""), metadata.get("continue", ""))

    async def create(
        self,
        kind: Kind,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str = "",
        subresource: str = "",
    ) -> Obj:
        where = namespace or obj.get("metadata", {}).get("namespace")
        path = kind.path(where, name, subresource)
        return await self._objects("POST", path, obj)

    async def update(self, kind: Kind, obj: Obj, *, subresource: str = "") -> Obj:
        path = kind.path(namespace(obj), name(obj), subresource)
        return await self._objects("PUT", path, obj)

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        type: str = "merge",  # noqa: A002 - the API's own word
        subresource: str = "",
    ) -> Obj:
        path = kind.path(namespace, name, subresource)
        return await self._objects("PATCH", path, patch, content_type=PATCH_TYPES[type])

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Obj:
        options = _delete_options(grace_period_seconds, propagation, uid, resource_version)
        return await self._objects("DELETE", kind.path(namespace, name), options)

    async def delete_collection(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
    ) -> Obj:
        path = with_query(kind.path(namespace), {"labelSelector": labels, "fieldSelector": fields})
        options = _delete_options(grace_period_seconds, propagation, None, None)
        return await self._objects("DELETE", path, options)

    @asynccontextmanager
    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        labels: str = "",
        fields: str = "",
        bookmarks: bool = True,
        timeout_seconds: int = 0,
    ) -> AsyncIterator[Watch]:
        query: dict[str, str | int] = {
            "watch": True,
            "resourceVersion": resource_version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "allowWatchBookmarks": bookmarks,
            "timeoutSeconds": timeout_seconds,
        }
        path = with_query(kind.path(namespace), query)
        async with self.stream(
            "GET", path, silence_seconds_max=self._config.silence_seconds
        ) as stream:
            yield Watch(stream)

    async def raw(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Response:
        """Any request; error statuses come back as responses.

        Raises Unreachable or, for methods other than GET, UnknownOutcome.
        """
        headers = self._headers(body, content_type, accept)
        backoff = RETRY_SECONDS_MIN
        for round_ in range(RETRY_ROUNDS_MAX):
            last = round_ == RETRY_ROUNDS_MAX - 1
            wait = 0.0
            try:
                response = await self._round(method, target, headers, body)
            except Unreachable:
                if last:
                    raise
            else:
                if last or not _may_repeat(method, response.status):
                    return response
                wait = _retry_after(response)
            await trio.sleep(wait or backoff * (1 + self._rng.random()))
            backoff *= 2
        raise AssertionError("the last round returns or raises")

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, *, silence_seconds_max: float | None = None
    ) -> AsyncIterator[Stream]:
        """A response whose body is read as it arrives (logs, watches).

        Raises ApiError for an error status, Unreachable when nobody answers.
        """
        connection = await self._streams.acquire()
        stream = None
        try:
            stream = await self._open_stream(connection, method, target, silence_seconds_max)
            yield stream
        finally:
            with trio.CancelScope(shield=True):  # closing is quick; it never flushes
                if stream is None or stream.failed:
                    await self._streams.avoid(connection.address)
                await self._streams.release(connection)

    async def _open_stream(
        self, connection: Connection, method: str, target: str, silence: float | None
    ) -> Stream:
        headers = self._headers(None, JSON, "*/*")
        data = encode_request(method, target, str(connection.address), headers, None)
        with trio.move_on_after(self._config.patience_seconds):
            try:
                head = await connection.request(data)
                if head.status >= 300:
                    body = await connection.receive_all()
                    raise error_of(Response(head.status, head.headers, body))
            except ConnectionLost as error:
                raise Unreachable(f"{method} {target}: {error}") from error
            return Stream(head, connection, silence)
        raise Unreachable(
            f"{method} {target}: no answer within {self._config.patience_seconds:g} s"
        )

    async def _objects(
        self, method: str, target: str, body: Any = None, *, content_type: str = JSON
    ) -> Obj:
        data = None if body is None else orjson.dumps(body)
        response = await self.raw(method, target, data, content_type=content_type)
        if response.status >= 300:
            raise error_of(response)
        answer: Obj = orjson.loads(response.body)
        return answer

    async def _round(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes | None
    ) -> Response:
        """Try each endpoint once, plus once more for a reused connection that had died.

        Raises Unreachable or UnknownOutcome.
        """
        reasons = []
        for attempt in range(self._pool.endpoint_count + 1):
            connection = await self._pool.acquire(fresh=attempt > 0)
            try:
                return await self._exchange(connection, method, target, headers, body)
            except ConnectionLost as error:
                if error.sent and method != "GET":
                    raise UnknownOutcome(f"{method} {target}: {error}") from error
                reasons.append(f"{connection.address}: {error}")
        raise Unreachable(f"{method} {target}: " + "; ".join(reasons))

    async def _exchange(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None,
    ) -> Response:
        """One request and its answer; raises ConnectionLost."""
        data = encode_request(method, target, str(connection.address), headers, body)
        started = trio.current_time()
        answered = False
        try:
            with trio.move_on_after(self._config.patience_seconds):
                head = await connection.request(data)
                content = await connection.receive_all()
                answered = True
                return Response(head.status, head.headers, content)
            raise ConnectionLost(f"silent for {self._config.patience_seconds:g} s", sent=True)
        finally:
            with trio.CancelScope(shield=True):  # closing is quick; it never flushes
                if not answered and self._is_suspect(connection, started):
                    await self._pool.avoid(connection.address)
                await self._pool.release(connection)

    def _is_suspect(self, connection: Connection, started: float) -> bool:
        """Whether a request without an answer speaks against its endpoint.

        A caller's own deadline is the usual way to meet a silent server; a caller who was
        cancelled at once says nothing about it.
        """
        return connection.lost or trio.current_time() - started >= SLOW_SECONDS

    def _headers(
        self, body: bytes | None, content_type: str, accept: str
    ) -> Sequence[tuple[str, str]]:
        headers = [("User-Agent", self._config.user_agent), ("Accept", accept)]
        if self._config.token:
            headers.append(("Authorization", f"Bearer {self._config.token}"))
        if body is not None:
            headers.append(("Content-Type", content_type))
        return headers


@asynccontextmanager
async def open_client(config: ClientConfig, host: Host) -> AsyncIterator[Client]:
    """A client; its connections are closed on leaving."""
    client = Client(config, host)
    try:
        yield client
    finally:
        with trio.CancelScope(shield=True):
            await client.aclose()


def error_of(response: Response) -> ApiError:
    """The ApiError of an answer with an error status, also of one without a Status object."""
    try:
        status = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = response.body[:200].decode("utf-8", "replace").strip()
        status = {
            "kind": "Status",
            "status": "Failure",
            "reason": REASONS.get(response.status, "Unknown"),
            "message": text or f"the server answered {response.status}",
            "code": response.status,
        }
    return from_status(status)


def with_query(path: str, query: Mapping[str, str | int | bool | None]) -> str:
    """The path with those parameters that are set (not None, "", 0 or False)."""
    pairs = [(key, "true" if value is True else value) for key, value in query.items() if value]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _may_repeat(method: str, status: int) -> bool:
    return status == 429 or (method == "GET" and status in TRANSIENT_STATUSES)


def _retry_after(response: Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_SECONDS_MAX) if text.isdigit() else 0.0


def _delete_options(
    grace_period_seconds: int | None,
    propagation: str | None,
    uid: str | None,
    resource_version: str | None,
) -> Obj:
    options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if grace_period_seconds is not None:
        options["gracePeriodSeconds"] = grace_period_seconds
    if propagation is not None:
        options["propagationPolicy"] = propagation
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    held = {key: value for key, value in preconditions.items() if value}
    if held:
        options["preconditions"] = held
    return options
