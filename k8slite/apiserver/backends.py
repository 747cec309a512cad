"""HTTP requests of the server's own: to webhooks, wherever a URL or a Service says they are.

Owns: a small pool of idle connections, and the TLS contexts. A reused connection that fails before
an answer came is replaced once; nothing else is repeated. Pods whose addresses are those of another
network are reached by way of their nodes' kubelets.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

import trio

from k8slite.api.kinds import SERVICES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.apiserver.endpoints import Endpoint, PodOnNode, ready_endpoints
from k8slite.apiserver.mirror import Mirror
from k8slite.apiserver.streaming.backend import secured
from k8slite.apiserver.streaming.kubelets import address_of_kubelet, lead_on
from k8slite.client.http import Connection, ConnectionLost, Response, encode_request
from k8slite.streaming.bytes import why
from raftkv.host import Address, Host

__all__ = ["BackendError", "Backends", "Place", "place_of", "refusal_words", "service_endpoint"]

IDLE_MAX = 32
IDLE_SECONDS_MAX = 20.0
CONNECT_SECONDS = 5.0
ANSWER_BYTES_MAX = 8 * 1024 * 1024
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class BackendError(Exception):
    """It gave no (complete) answer; the text says why."""


_REFUSALS = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be "
    "processing the request",
}
REASON_BYTES_MAX = 2048


def refusal_words(answer: Response) -> str:
    """An answer that is not 200, as Kubernetes' clients tell it."""
    if answer.status in _REFUSALS:
        return _REFUSALS[answer.status]
    if answer.status >= 500:
        text = answer.body[:REASON_BYTES_MAX].decode("utf-8", "replace").strip() or "unknown"
        shown = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'an error on the server ("{shown}") has prevented the request from succeeding'
    return (
        f"the server responded with the status code {answer.status} but did not return more "
        "information"
    )


class Place(NamedTuple):
    """Where a request goes, and as whom the other side must show itself. `url` is for messages."""

    address: Address
    server_name: str
    host: str
    path: str
    url: str
    ca: str
    pod: PodOnNode | None = None
    insecure: bool = False
    """The other side may be anybody."""
    as_proxy: bool = False
    """Show the certificate of whom aggregated servers trust to tell them who asks."""


def place_of(mirror: Mirror, config: Obj, ca: str, rng: Random) -> Place:
    """Where a clientConfig leads. Raises BackendError."""
    if config.get("url"):
        url = config["url"]
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return Place(Address(host, port), host, parts.netloc, path or "/", url, ca)
    service = config.get("service") or {}
    name, namespace = service.get("name", ""), service.get("namespace", "")
    port = service.get("port") or 443
    server_name = f"{name}.{namespace}.svc"
    path = "/" + (service.get("path") or "").removeprefix("/")
    address, pod = service_endpoint(mirror, namespace, name, port, rng)
    host = f"{server_name}:{port}"
    return Place(address, server_name, host, path, f"https://{host}{path}", ca, pod)


def service_endpoint(mirror: Mirror, namespace: str, name: str, port: int, rng: Random) -> Endpoint:
    """One of the ready endpoints of a Service. Raises BackendError."""
    entry = mirror.cache(SERVICES).get(namespace, name)
    if entry is None:
        raise BackendError(f'service "{name}" not found')
    spec = entry.parsed().get("spec") or {}
    if spec.get("type") == "ExternalName":
        return Endpoint(Address(spec.get("externalName", ""), port))
    found = next((p for p in spec.get("ports") or () if p.get("port") == port), None)
    if found is None:
        raise BackendError(f'no service port {port} found for service "{name}"')
    endpoints = ready_endpoints(mirror, namespace, name, found.get("name") or "")
    if not endpoints:
        raise BackendError(f'no endpoints available for service "{name}"')
    return rng.choice(endpoints)


@lru_cache(maxsize=128)
def _context(ca: str, insecure: bool, identity: tuple[str, str] | None) -> ssl.SSLContext:
    """Trusts this bundle (PEM), or the machine's own where there is none. Raises ssl.SSLError."""
    context = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


class Backends:
    """See the module. `identity`: certificate and key (paths) for places that want `as_proxy`."""

    def __init__(
        self,
        host: Host,
        mirror: Mirror,
        kubelet_tls: ssl.SSLContext | None = None,
        identity: tuple[str, str] | None = None,
    ) -> None:
        self._host = host
        self._mirror = mirror
        self._kubelet_tls = kubelet_tls
        self._identity = identity
        self._idle: list[tuple[Place, Connection]] = []

    def identified_by(self, identity: tuple[str, str]) -> Backends:
        """The same with another certificate of ours, and connections of its own."""
        return Backends(self._host, self._mirror, self._kubelet_tls, identity)

    async def post(self, place: Place, query: str, body: bytes) -> Response:
        """Send JSON and read the whole answer. Raises BackendError; the caller bounds the time."""
        headers = [
            ("Content-Type", "application/json"),
            ("Accept", "application/json, */*"),
            ("User-Agent", "kube-apiserver-admission"),
        ]
        target = place.path + ("&" if "?" in place.path else "?") + query
        return await self.send(place, "POST", target, headers, body)

    async def send(
        self,
        place: Place,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None,
    ) -> Response:
        """Any request. Raises BackendError."""
        data = encode_request(method, target, place.host, headers, body)
        connection = await self._reuse(place)
        if connection is not None:
            try:
                return await self._exchange(place, connection, data)
            except ConnectionLost:
                pass  # it was closed while idle; the answer had not begun
        try:
            return await self._exchange(place, await self._connect(place), data)
        except ConnectionLost as error:
            raise BackendError(str(error)) from None

    async def _exchange(self, place: Place, connection: Connection, data: bytes) -> Response:
        kept = False
        try:
            head = await connection.request(data)
            parts, size = [], 0
            while part := await connection.receive():
                parts.append(part)
                size += len(part)
                if size > ANSWER_BYTES_MAX:
                    raise BackendError("the answer is too large")
            if connection.reusable and len(self._idle) < IDLE_MAX:
                connection.idle_since = trio.current_time()
                self._idle.append((place, connection))
                kept = True
            return Response(head.status, head.headers, b"".join(parts))
        finally:
            if not kept:
                with trio.CancelScope(shield=True):
                    await connection.aclose()

    async def _reuse(self, place: Place) -> Connection | None:
        now = trio.current_time()
        for i, (other, connection) in enumerate(self._idle):
            if other._replace(path="", url="") == place._replace(path="", url=""):
                del self._idle[i]
                young = now - connection.idle_since < IDLE_SECONDS_MAX
                if young and not connection.looks_closed():
                    return connection
                await connection.aclose()
                return None
        return None

    async def _connect(self, place: Place) -> Connection:
        return Connection(await self.open_stream(place), place.address)

    async def open_stream(self, place: Place) -> trio.abc.Stream:
        """A connection under TLS. Raises BackendError."""
        stream: trio.abc.Stream | None = None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                stream = await self._dial(place)
                identity = self._identity if place.as_proxy else None
                secure = trio.SSLStream(
                    stream,
                    _context(place.ca, place.insecure, identity),
                    server_hostname=place.server_name,
                    https_compatible=True,
                )
                await secure.do_handshake()
                return secure
        except BaseException as error:
            if stream is not None:
                await trio.aclose_forcefully(stream)
            if isinstance(error, trio.TooSlowError):
                raise BackendError(f"dial tcp {place.address}: i/o timeout") from None
            if isinstance(error, (*BROKEN, ssl.SSLError)):
                raise BackendError(f"dial tcp {place.address}: {why(error)}") from None
            raise

    async def _dial(self, place: Place) -> trio.abc.Stream:
        """The bare connection, through the kubelet where only it can reach the pod."""
        if place.pod is None:
            return await self._host.net.open_stream(place.address)
        try:
            kubelet = address_of_kubelet(self._mirror, place.pod.node)
        except ApiError as error:
            raise BackendError(f"dial tcp {place.address}: {error.message}") from None
        stream = await self._host.net.open_stream(kubelet)
        try:
            backend = await secured(stream, kubelet, self._kubelet_tls)
            await lead_on(backend, place.pod, place.address)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return backend.detach()

    async def aclose(self) -> None:
        """Close what is idle."""
        for _, connection in self._idle:
            await connection.aclose()
        self._idle.clear()
