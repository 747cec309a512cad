"""What the apiserver passes on: to whom, for whom, and how it words what fails."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio

from k8slite.apiserver import Apiserver
from k8slite.streaming.bytes import ByteStream
from k8slite.streaming.websocket import WebSocket
from tests.apiserver.support import (
    ADMIN,
    ALICE,
    Session,
    open_session,
    open_test_apiserver,
    pod,
)
from tests.streaming.clients import shake_hands, spdy_headers, websocket_headers

V5 = websocket_headers("v5.channel.k8s.io")
PODS = "/api/v1/namespaces/default/pods"
Serve = Callable[[trio.SocketStream, bytes], Awaitable[None]]


class Backend:
    """A server that keeps the heads of requests and answers as it is told."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heads: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"
        self.open = 0
        self.echo = False
        self.page = b""

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            head = bytearray()
            while b"\r\n\r\n" not in head:
                data = bytes(await stream.receive_some())
                if not data:
                    return
                head += data
            self.heads.append(head.decode())
            await stream.send_all(self.answer)
            if self.page:
                await stream.receive_some()
                await stream.send_all(self.page)
            if self.echo:
                async for piece in stream:
                    await stream.send_all(bytes(piece).upper())
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            self.open -= 1


@asynccontextmanager
async def open_backend() -> AsyncIterator[Backend]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    backend = Backend(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, backend.serve, [listener])
        yield backend
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def world(**changes: Any) -> AsyncIterator[tuple[Apiserver, Backend, Session]]:
    """A node whose kubelet the back end is, and a pod `p` on it that is served by it too."""
    async with open_backend() as backend, open_test_apiserver(**changes) as server:
        async with open_session(server) as session:
            await session.call("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
            status = {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": backend.port}},
            }
            await patch(session, "/api/v1/nodes/n/status", {"status": status})
            made = pod("p", nodeName="n")
            made["spec"]["containers"][0]["ports"] = [{"containerPort": backend.port}]
            await session.call("POST", PODS, made)
            ip = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
            await patch(session, f"{PODS}/p/status", {"status": ip})
            await session.call("POST", PODS, pod("unbound"))
            yield server, backend, session


async def patch(session: Session, path: str, body: Any) -> None:
    status, answer = await session.call(
        "PATCH", path, body, content_type="application/merge-patch+json"
    )
    assert status == 200, answer


@asynccontextmanager
async def dialled(
    server: Apiserver, path: str, headers: dict[bytes, bytes], *, method: str = "GET", **more: Any
) -> AsyncIterator[Any]:
    stream = await trio.open_tcp_stream(*server.address)
    with trio.fail_after(20):
        async with stream:
            token = more.pop("token", ADMIN)
            yield stream, await shake_hands(stream, path, headers, method=method, token=token)


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: x\r\n\r\nearly "
)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (
            "exec?command=sh&command=-c&command=a%20b%26&stdin=true&stdout=1&tty=true&container=c",
            "/exec/default/p/c?input=1&output=1&tty=1&command=sh&command=-c&command=a+b%26",
        ),
        ("attach?stdout=true&stderr=true", "/attach/default/p/c?output=1&error=1"),
        ("portforward", "/portForward/default/p"),
        ("portforward?ports=80&ports=81", "/portForward/default/p?port=80%2C81"),
    ],
)
async def test_upgrades_are_relayed(path: str, target: str) -> None:
    async with world() as (server, backend, _):
        backend.answer, backend.echo = SWITCH, True
        for headers, method in ((V5, "GET"), (spdy_headers("v4.channel.k8s.io"), "POST")):
            url = f"{PODS}/p/{path}"
            async with dialled(server, url, headers, method=method) as (stream, answer):
                assert answer.status == 101
                assert answer.headers["sec-websocket-accept"] == "x"
                await stream.send_all(b"hello")
                received = answer.early
                while received != b"early HELLO":
                    received += bytes(await stream.receive_some())
            head = backend.heads.pop()
            assert head.startswith(f"{method} {target} HTTP/1.1\r\n"), head
            assert "authorization" not in head.lower()
            assert "upgrade" in head.lower()
        with trio.fail_after(10):  # the client has left: so does the relay
            while backend.open:
                await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"{PODS}/none/exec?command=ls&stdout=1", 404, 'pods "none" not found'),
        (f"{PODS}/p/exec?stdout=1", 400, "at least one command"),
        (f"{PODS}/p/exec?command=ls", 400, "at least 1 of stdin, stdout, stderr"),
        (f"{PODS}/p/exec?command=ls&stdout=1&container=x", 400, "container x is not valid"),
        (f"{PODS}/unbound/exec?command=ls&stdout=1", 400, "does not have a host assigned"),
        (f"{PODS}/unbound/portforward", 400, "does not have a host assigned"),
    ],
)
async def test_what_the_apiserver_refuses_itself(path: str, status: int, words: str) -> None:
    async with world() as (server, _, _):
        async with dialled(server, path, V5) as (_, answer):
            assert answer.status == status
            assert words in orjson.loads(answer.body)["message"]


async def test_logs_by_websocket() -> None:
    """As Kubernetes' conformance tests read them."""
    async with world() as (server, backend, _):
        backend.answer = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"
        )
        path = f"{PODS}/p/log?follow=true"
        for protocol in ("binary.k8s.io", "base64.binary.k8s.io", ""):
            headers = websocket_headers(protocol) if protocol else websocket_headers()
            async with dialled(server, path, headers) as (stream, answer):
                assert answer.status == 101
                websocket = WebSocket(ByteStream.over(stream, answer.early), client=True)
                received = b""
                while (piece := await websocket.receive()) is not None:
                    received += piece.data
                if protocol.startswith("base64"):
                    received = base64.b64decode(received)
                assert received == b"one\ntwo\n"
        async with dialled(server, path, websocket_headers("nonsense")) as (_, answer):
            assert answer.status == 403


async def test_tokens_in_subprotocols_stay_with_the_apiserver() -> None:
    token = base64.urlsafe_b64encode(ADMIN.encode()).rstrip(b"=").decode()
    hidden = f"base64url.bearer.authorization.k8s.io.{token}"
    async with world() as (server, backend, _):
        backend.answer = SWITCH
        for protocols, passed in (((hidden, "v4.channel.k8s.io"), True), ((hidden,), False)):
            path = f"{PODS}/p/exec?command=ls&stdout=1"
            async with dialled(server, path, websocket_headers(*protocols), token="") as dialog:
                assert dialog[1].status == 101
            head = backend.heads.pop()
            assert token not in head
            assert ("sec-websocket-protocol: v4.channel.k8s.io\r\n" in head) is passed


async def test_what_the_kubelet_refuses_is_passed_on() -> None:
    async with world() as (server, backend, _):
        backend.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nno c\n"
        async with dialled(server, f"{PODS}/p/exec?command=ls&stdout=1", V5) as (_, answer):
            assert (answer.status, answer.body) == (404, b"no c\n")
        backend.answer = b"nonsense\r\n\r\n"
        async with dialled(server, f"{PODS}/p/exec?command=ls&stdout=1", V5) as (_, answer):
            assert answer.status == 503


async def test_an_unreachable_kubelet() -> None:
    async with world() as (_, _, session):
        port = {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}
        await patch(session, "/api/v1/nodes/n/status", {"status": port})
        for path in (f"{PODS}/p/exec?command=ls&stdout=1", f"{PODS}/p/log"):
            status, answer = await session.call("GET", path)
            assert status == 500
            assert (
                "error dialing backend: dial tcp 127.0.0.1:1: connection refused"
                in (answer["message"])
            )


async def test_reading_pods_is_not_enough() -> None:
    """`get` of pods/exec, which a WebSocket needs, gives nobody a shell."""
    rules = [{"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}]
    bind = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    async with world() as (server, backend, session):
        rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
        await session.call("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": rules})
        await session.call("POST", f"{rbac}/rolebindings", bind)
        for verb in ("exec?command=ls&stdout=1", "attach?stdout=1", "portforward"):
            async with dialled(server, f"{PODS}/p/{verb}", V5, token=ALICE) as (_, answer):
                assert answer.status == 403
                name = verb.partition("?")[0]
                words = f'cannot create resource "pods/{name}" in API group'
                assert words in orjson.loads(answer.body)["message"]
        assert not backend.heads
        rules[0]["verbs"].append("create")
        await session.call("PUT", f"{rbac}/roles/r", {"metadata": {"name": "r"}, "rules": rules})
        backend.answer = SWITCH
        async with dialled(server, f"{PODS}/p/portforward", V5, token=ALICE) as (_, answer):
            assert answer.status == 101


async def test_a_client_who_leaves_before_the_answer_leaves_nothing() -> None:
    async with world() as (server, backend, _):
        backend.answer = b""
        stream = await trio.open_tcp_stream(*server.address)
        async with stream:
            with trio.move_on_after(0.3):
                await shake_hands(stream, f"{PODS}/p/portforward", V5, token=ADMIN)
        backend.answer = SWITCH
        async with dialled(server, f"{PODS}/p/portforward", V5) as (_, answer):
            assert answer.status == 101


async def test_proxies() -> None:
    async with world() as (_, backend, session):
        web = {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
        await session.call("POST", "/api/v1/namespaces/default/services", web)
        slice_ = {
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend.port}],
            "endpoints": [
                {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
                {"addresses": ["127.0.0.9"], "conditions": {"ready": False}},
            ],
        }
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        status, answer = await session.call("POST", path, slice_)
        assert status == 201, answer
        services = "/api/v1/namespaces/default/services"
        for prefix in (
            f"{PODS}/p/proxy",
            f"{PODS}/p:{backend.port}/proxy",
            f"{PODS}/http:p:{backend.port}/proxy",
            f"{services}/web/proxy",
            f"{services}/web:80/proxy",
            f"{services}/web:http/proxy",
            "/api/v1/nodes/n/proxy",
            f"/api/v1/nodes/n:{backend.port}/proxy",
        ):
            assert await session.call("GET", f"{prefix}/a%20b/?x=%2F&y") == (200, "ok"), prefix
            head = backend.heads.pop()
            assert head.startswith("GET /a%20b/?x=%2F&y HTTP/1.1\r\n"), prefix
            assert "authorization" not in head.lower()
            assert f"X-Forwarded-Uri: {prefix}/a%20b/" in head
            status, _ = await session.call("GET", prefix)
            assert status == 301
            assert session.headers["location"] == f"{prefix}/"
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                answer = await session.call(method, f"{prefix}/x", b"body")
                assert answer == (200, "ok")
                assert backend.heads.pop().startswith(f"{method} /x HTTP/1.1\r\n")
        for path, status, words in (
            (f"{services}/web:81/proxy/", 503, 'no service port 81 found for service "web"'),
            (f"{services}/web:x/proxy/", 503, 'no endpoints available for service "web"'),
            (f"{services}/none/proxy/", 404, 'services "none" not found'),
            (f"{PODS}/a:b:c:d/proxy/", 400, "invalid pod request"),
            (f"{PODS}/unbound/proxy/", 400, "address not allowed"),
            (f"{PODS}/p:1/proxy/", 503, "dial tcp 127.0.0.1:1: connection refused"),
            (f"{PODS}/p:99999/proxy/", 400, "invalid port"),
        ):
            found, answer = await session.call("GET", path)
            assert (found, words in answer["message"]) == (status, True), answer


async def test_proxied_redirects_and_streams() -> None:
    async with world() as (server, backend, session):
        head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {}\r\nX-Own: 1\r\n\r\n"
        prefix = f"{PODS}/p/proxy"
        for given, turned in (
            ("/login?x=1#y", f"{prefix}/login?x=1#y"),
            (f"http://127.0.0.1:{backend.port}/z", f"{prefix}/z"),
            ("https://example.com/z", "https://example.com/z"),
            ("next", "next"),
        ):
            backend.answer = head.format(given).encode()
            assert (await session.call("GET", f"{prefix}/"))[0] == 302
            assert session.headers["location"] == turned
            assert session.headers["x-own"] == "1"
        backend.answer = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert await session.call("GET", f"{prefix}/") == (200, "abc")
        backend.answer, backend.echo = SWITCH, True
        async with dialled(server, f"{prefix}/socket", V5) as (stream, answer):
            assert answer.status == 101
            await stream.send_all(b"x")
            received = answer.early
            while received != b"early X":
                received += bytes(await stream.receive_some())


async def test_pods_are_reached_by_way_of_their_node() -> None:
    """The apiserver's machine is not part of the pod network."""
    async with world() as (_, backend, session):
        ip = {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}
        await patch(session, f"{PODS}/p/status", {"status": ip})
        backend.answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 8\r\n\r\nno luck\n"
        status, answer = await session.call("GET", f"{PODS}/p:81/proxy/")
        message = "error trying to reach service: dial tcp 10.9.9.9:81: no luck"
        assert (status, answer["message"]) == (503, message)
        assert backend.heads.pop().startswith("GET /podDial/default/p?port=81 HTTP/1.1\r\n")
        page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        backend.answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\n" + (
            b"Connection: Upgrade\r\n\r\n"
        )
        backend.page = page
        assert await session.call("GET", f"{PODS}/p:81/proxy/x") == (200, "hello")


async def test_pods_do_not_lead_to_the_apiserver_itself() -> None:
    async with world(allow_loopback_endpoints=False) as (_, backend, session):
        status, answer = await session.call("GET", f"{PODS}/p/proxy/")
        assert (status, answer["message"]) == (400, "address not allowed")
        assert not backend.heads
