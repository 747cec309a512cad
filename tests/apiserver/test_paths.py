"""Paths that are no resources, bootstrap objects, and logs through a kubelet."""

from __future__ import annotations

import pytest
import trio

from k8slite.apiserver import Apiserver
from tests.apiserver.support import ALICE, Session, open_session, open_watch, pod

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("/version", 200, '"minor":"36"'),
        ("/healthz", 200, "ok"),
        ("/livez", 200, "ok"),
        ("/readyz?verbose", 200, "[+]store ok"),
        ("/readyz/store", 200, "ok"),
        ("/readyz/nonsense", 404, "404 page not found"),
        ("/metrics", 200, "apiserver_request_total"),
        ("/api", 200, '"versions":["v1"]'),
        ("/api/v1", 200, '"name":"pods/log"'),
        ("/apis/apps", 200, '"preferredVersion"'),
        ("/apis/apps/v1", 200, '"deployments/scale"'),
        ("/apis/nothing.here", 404, "404 page not found"),
        ("/apis/nothing.here/v1/things", 404, "404 page not found"),
        ("/api/v1/things", 404, "could not find the requested resource"),
        ("/openapi/v2", 200, '"swagger":"2.0"'),
        ("/openapi/v3", 200, "/openapi/v3/apis/apps/v1?hash="),
        ("/openapi/v3/apis/apps/v1", 200, "io.k8s.api.apps.v1.Deployment"),
        ("/.well-known/openid-configuration", 200, '"jwks_uri"'),
        ("/openid/v1/jwks", 200, '"crv":"P-256"'),
        ("/bananas", 404, "404 page not found"),
    ],
)
async def test_paths(session: Session, path: str, status: int, part: str) -> None:
    await session.call("GET", "/version")
    got, _ = await session.call("GET", path)
    assert got == status
    assert part in session.text.decode()


async def test_aggregated_discovery_says_so_in_its_type(session: Session) -> None:
    _, text = await session.call("GET", "/apis", accept=f"{AGGREGATED},application/json")
    assert session.headers["content-type"] == AGGREGATED
    assert "APIGroupDiscoveryList" in text


async def test_health_is_open_and_metrics_are_not(server: Apiserver) -> None:
    async with open_session(server, ALICE) as alice:
        status, _ = await alice.call("GET", "/healthz")
        assert status == 200
        status, refused = await alice.call("GET", "/metrics")
        assert (status, refused["message"]) == (
            403,
            'forbidden: User "alice" cannot get path "/metrics"',
        )
        status, _ = await alice.call("POST", "/version")
        assert status == 403


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/api/v1/namespaces", {"default", "kube-system", "kube-public", "kube-node-lease"}),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            {"system-cluster-critical", "system-node-critical"},
        ),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", {"admin", "edit", "view"}),
        ("/api/v1/namespaces/default/services", {"kubernetes"}),
        ("/api/v1/namespaces/default/endpoints", {"kubernetes"}),
        ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {"kubernetes"}),
        ("/apis/networking.k8s.io/v1/ipaddresses", {"10.96.0.1"}),
    ],
)
async def test_a_fresh_cluster_has(session: Session, path: str, names: set[str]) -> None:
    _, found = await session.call("GET", path)
    assert names <= {item["metadata"]["name"] for item in found["items"]}


async def test_logs_come_through_the_kubelet(server: Apiserver, session: Session) -> None:
    asked: list[bytes] = []

    async def kubelet(stream: trio.SocketStream) -> None:
        asked.append((await stream.receive_some(10_000)).partition(b"\r\n")[0])
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in (b"one\n", b"two\n"):
            await stream.send_all(b"%x\r\n%b\r\n" % (len(line), line))
        await stream.send_all(b"0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, kubelet, listeners)
        node = {
            "metadata": {"name": "n1"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            },
        }
        status, _ = await session.call("POST", "/api/v1/nodes", node)
        assert status == 201
        await session.call("POST", PODS, pod("p"))
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
        await session.call("POST", f"{PODS}/p/binding", binding)
        status, text = await session.call("GET", f"{PODS}/p/log?tailLines=5&follow=true")
        assert (status, text) == (200, "one\ntwo\n")
        assert asked == [b"GET /containerLogs/default/p/c?follow=true&tailLines=5 HTTP/1.1"]
        status, refused = await session.call("GET", f"{PODS}/p/log?container=x")
        assert (status, refused["message"]) == (400, "container x is not valid for pod p")
        nursery.cancel_scope.cancel()


async def test_a_watch_counts_as_long_running(server: Apiserver, session: Session) -> None:
    async with open_watch(server, "/api/v1/pods?watch=1"):
        await session.call("GET", "/metrics")
        assert b'apiserver_longrunning_requests{resource="pods"} 1' in session.text


async def test_impersonation_needs_the_right(server: Apiserver, session: Session) -> None:
    raw = (
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Impersonate-User: bob\r\nConnection: close\r\n\r\n"
    )
    for token, message in (
        (b"admin-token", b'User \\"bob\\" cannot list resource'),
        (b"alice-token", b'User \\"alice\\" cannot impersonate resource'),
    ):
        stream = await trio.open_tcp_stream(server.address.host, server.address.port)
        async with stream:
            await stream.send_all(raw % token)
            received = b""
            while data := await stream.receive_some(10_000):
                received += bytes(data)
            assert message in received
