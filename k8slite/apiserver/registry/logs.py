"""pods/log: the kubelet's answer, passed on as it comes."""

from __future__ import annotations

import contextlib
import ssl
from urllib.parse import urlencode

import httptools
import trio

from k8slite.api.kinds import NODES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, bad_request, not_found
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, StreamResponse, Writer, chunk
from k8slite.apiserver.registry.reads import find
from raftkv.host import Address

__all__ = ["kubelet_address", "open_kubelet", "pod_log"]

KUBELET_PORT = 10250
READ_BYTES = 64 * 1024
CONNECT_SECONDS = 10.0
_PASSED_ON = (
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
)
_BROKEN = (OSError, ssl.SSLError, trio.BrokenResourceError, trio.ClosedResourceError)


async def pod_log(call: Call) -> Response | StreamResponse:
    """GET pods/NAME/log"""
    entry = await find(call)
    pod = entry.parsed()
    container = _container(call, pod)
    node = (pod.get("spec") or {}).get("nodeName", "")
    if not node:
        return Response(200, b"", b"text/plain")
    address = kubelet_address(call, node)
    given = {name: call.param(name) for name in _PASSED_ON if call.param(name)}
    name = pod["metadata"]["name"]
    path = f"/containerLogs/{call.namespace}/{name}/{container}"
    if given:
        path += "?" + urlencode(given)
    stream = await open_kubelet(call, address)
    try:
        answer = _Answer(stream)
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()
        )
        await answer.read_head()
        if answer.status != 200:
            body = await answer.read_rest()
            raise _refusal(answer.status, body)
    except _BROKEN as error:
        await trio.aclose_forcefully(stream)
        raise _unreachable(address, error) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise

    async def run(writer: Writer) -> None:
        try:
            with contextlib.suppress(*_BROKEN):
                while True:
                    data = answer.take()
                    if data:
                        await writer.send(chunk(data))
                    if answer.complete or not await answer.read():
                        return
        finally:
            await trio.aclose_forcefully(stream)

    async def abandon() -> None:
        await trio.aclose_forcefully(stream)

    return StreamResponse(200, run, b"text/plain", abandon=abandon)


def _container(call: Call, pod: Obj) -> str:
    """The container asked for, or the only one. Raises ApiError 400."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    containers = [c["name"] for c in spec.get("containers") or ()]
    inits = [c["name"] for c in spec.get("initContainers") or ()]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or ()]
    wanted = call.param("container")
    if wanted:
        if wanted not in (*containers, *inits, *ephemeral):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(containers) == 1 and not inits and not ephemeral:
        return str(containers[0])
    default = (pod["metadata"].get("annotations") or {}).get(
        "kubectl.kubernetes.io/default-container"
    )
    if default in containers:
        return str(default)
    message = f"a container name must be specified for pod {name}, choose one of: {_go(containers)}"
    if inits:
        message += f" or one of the init containers: {_go(inits)}"
    raise bad_request(message)


def _go(names: list[str]) -> str:
    return f"[{' '.join(names)}]"


def kubelet_address(call: Call, node: str) -> Address:
    """Where the kubelet of a node listens. Raises ApiError 404 or 500."""
    entry = call.core.mirror.cache(NODES).get("", node)
    if entry is None:
        raise not_found(NODES, node)
    status = entry.parsed().get("status") or {}
    found = {a.get("type"): a.get("address") for a in status.get("addresses") or ()}
    host = found.get("InternalIP") or found.get("ExternalIP") or found.get("Hostname")
    if not host:
        raise ApiError(500, "InternalError", f"Internal error occurred: no address of node {node}")
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return Address(host, endpoint.get("Port") or KUBELET_PORT)


async def open_kubelet(call: Call, address: Address) -> trio.abc.Stream:
    """A connection to a kubelet. Raises ApiError 500."""
    tls = call.core.config.kubelet_tls
    try:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await call.core.host.net.open_stream(address)
            if tls is not None:
                secure = trio.SSLStream(
                    stream, tls, server_hostname=address.host, https_compatible=True
                )
                await secure.do_handshake()
                return secure
            return stream
    except (*_BROKEN, trio.TooSlowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: Address, error: BaseException) -> ApiError:
    return ApiError(
        500, "InternalError", f"Internal error occurred: error dialing backend {address}: {error}"
    )


def _refusal(status: int, body: bytes) -> ApiError:
    text = body.decode(errors="replace").strip()
    if status == 404:
        return ApiError(404, "NotFound", text or "the server could not find the requested resource")
    if status == 400:
        return bad_request(text)
    return ApiError(500, "InternalError", f"Internal error occurred: {text}")


class _Answer:
    """A kubelet's answer while it comes in (callbacks of httptools)."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._has_head = False
        self.complete = False
        self.status = 0

    def on_headers_complete(self) -> None:
        self._has_head = True
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = True

    def take(self) -> bytes:
        """The body received since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    async def read(self) -> bool:
        """Receive some; False at the end."""
        data = bytes(await self._stream.receive_some(READ_BYTES))
        if data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise trio.BrokenResourceError("not HTTP") from error
        return bool(data)

    async def read_head(self) -> None:
        """Receive up to the end of the head."""
        while not self._has_head:
            if not await self.read():
                raise trio.BrokenResourceError("connection closed")

    async def read_rest(self) -> bytes:
        """Receive the whole body."""
        while not self.complete and await self.read():
            pass
        return self.take()
