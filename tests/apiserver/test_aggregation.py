"""Other apiservers behind this one: their state, the way there, and what discovery says of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
from cryptography import x509

from k8slite.api.discovery import AGGREGATED_V2
from k8slite.apiserver import Apiserver
from k8slite.apiserver.http.connection import serve_connection
from k8slite.apiserver.http.message import (
    Request,
    Response,
    StreamResponse,
    UpgradeResponse,
    Writer,
    chunk,
)
from tests.apiserver.support import ALICE, Session, open_session, open_test_apiserver, open_watch
from tests.certificates import Authority
from tests.streaming.clients import shake_hands, websocket_headers

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
GIZMOS = "/apis/gizmo.io/v1/namespaces/default/gizmos"
MERGE = "application/merge-patch+json"
NAME = "v1.gizmo.io"


class Extension:
    """Another apiserver: it serves gizmos, and remembers what it was asked."""

    def __init__(self, port: int, ca: str) -> None:
        self.port = port
        self.ca = ca
        self.asked: list[Request] = []
        self.is_well = True

    def last(self) -> Request:
        """The last one that was not a look at what it serves."""
        return next(r for r in reversed(self.asked) if r.path.startswith(GIZMOS))

    async def handle(self, request: Request) -> Response | StreamResponse | UpgradeResponse:
        self.asked.append(request)
        if not self.is_well:
            return Response(500, b"ill", b"text/plain")
        path = request.path
        if path == "/apis/gizmo.io/v1":
            resources = [
                {"name": "gizmos", "singularName": "gizmo", "namespaced": True, "kind": "Gizmo",
                 "verbs": ["get", "list"], "shortNames": ["gz"]},
                {"name": "gizmos/turn", "namespaced": True, "kind": "Turn", "verbs": ["create"]},
            ]  # fmt: skip
            answer = {"kind": "APIResourceList", "groupVersion": "gizmo.io/v1"}
            return Response(200, orjson.dumps({**answer, "resources": resources}))
        if path == "/openapi/v3":
            where = {"serverRelativeURL": "/openapi/v3/apis/gizmo.io/v1?hash=ABC"}
            return Response(200, orjson.dumps({"paths": {"apis/gizmo.io/v1": where}}))
        if path == "/openapi/v3/apis/gizmo.io/v1":
            return Response(200, b'{"openapi":"3.0.0"}')
        if request.headers.get(b"upgrade"):
            return UpgradeResponse(_echo, ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")))
        if "watch=1" in request.query_string:
            return StreamResponse(200, _two_events)
        if path.startswith(GIZMOS):
            body = {"path": path, "query": request.query_string, "sent": request.body.decode()}
            return Response(201 if request.method == "POST" else 200, orjson.dumps(body))
        return Response(404, b"404 page not found\n", b"text/plain")


async def _two_events(writer: Writer) -> None:
    for name in ("a", "b"):
        event = {"type": "ADDED", "object": {"metadata": {"name": name}}}
        await writer.send(chunk(orjson.dumps(event) + b"\n"))


async def _echo(receive: Callable[[], Any], send: Callable[[bytes], Any]) -> None:
    while data := await receive():
        await send(data.upper())


@asynccontextmanager
async def open_extension(folder: Path) -> AsyncIterator[tuple[Extension, dict[str, Any]]]:
    """The server, and how an apiserver must be configured to be trusted by it."""
    authority = Authority(folder / "own", names=("gizmos.default.svc",))
    front = Authority(folder / "front", name="front")
    ca, certificate, key = front.files("front-proxy-client")
    context = authority.tls("gizmos", require_client=False).server
    context.load_verify_locations(ca)
    found: list[Extension] = []

    async def serve(stream: trio.abc.Stream) -> None:
        await serve_connection(stream, found[0].handle, tls=context, body_bytes_max=1 << 20)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        bundle = base64.b64encode(authority.path.read_bytes()).decode()
        found.append(Extension(listeners[0].socket.getsockname()[1], bundle))
        config = {
            "proxy_client": (certificate, key),
            "proxy_client_ca": front.path.read_bytes(),
            "client_ca": authority.path.read_bytes(),
        }
        yield found[0], config
        nursery.cancel_scope.cancel()


async def post(session: Session, path: str, body: dict[str, Any]) -> Any:
    status, answer = await session.call("POST", path, body)
    assert status == 201, answer
    return answer


async def register(session: Session, extension: Extension, **spec: Any) -> None:
    service = {"metadata": {"name": "gizmos"}, "spec": {"ports": [{"name": "s", "port": 443}]}}
    await post(session, "/api/v1/namespaces/default/services", service)
    await serve_endpoints(session, extension)
    body = {
        "metadata": {"name": NAME},
        "spec": {
            "group": "gizmo.io", "version": "v1", "groupPriorityMinimum": 17000,
            "versionPriority": 20, "caBundle": extension.ca,
            "service": {"name": "gizmos", "namespace": "default"}, **spec,
        },
    }  # fmt: skip
    await post(session, SERVICES, body)


async def serve_endpoints(session: Session, extension: Extension) -> None:
    slice_ = {
        "metadata": {"name": "gizmos-1", "labels": {"kubernetes.io/service-name": "gizmos"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"name": "s", "port": extension.port}],
    }
    await post(session, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)


async def available(server: Apiserver, reason: str) -> dict[str, Any]:
    """Wait until the condition says so."""
    query = f"watch=1&fieldSelector=metadata.name%3D{NAME}"
    async with open_watch(server, f"{SERVICES}?{query}") as watch:
        with trio.fail_after(10):
            while True:
                event = await watch.next()
                conditions = (event["object"].get("status") or {}).get("conditions") or [{}]
                if conditions[0].get("reason") == reason:
                    found: dict[str, Any] = conditions[0]
                    return found


@asynccontextmanager
async def world(folder: Path, **spec: Any) -> AsyncIterator[tuple[Apiserver, Session, Extension]]:
    async with open_extension(folder) as (extension, config):
        async with open_test_apiserver(**config) as server, open_session(server) as session:
            await register(session, extension, **spec)
            await available(server, "Passed")
            extension.asked.clear()
            yield server, session, extension


async def test_local_services_are_registered(server: Apiserver, session: Session) -> None:
    _, found = await session.call("GET", SERVICES)
    items = {item["metadata"]["name"]: item for item in found["items"]}
    assert {"v1.", "v1.apps", "v2.autoscaling"} <= items.keys()
    assert "v1.apiregistration.k8s.io" not in items
    core = items["v1."]
    assert core["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert core["spec"] == {"groupPriorityMinimum": 18000, "version": "v1", "versionPriority": 1}
    (condition,) = core["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"], condition["message"]) == (
        "Available", "True", "Local", "Local APIServices are always available",
    )  # fmt: skip


async def test_requests_are_passed_on_in_the_name_of_the_user(tmp_path: Path) -> None:
    async with world(tmp_path) as (server, session, extension):
        status, answer = await session.call("GET", f"{GIZMOS}/a%20b?x=1&y=%2F")
        assert (status, answer["path"]) == (200, f"{GIZMOS}/a b")
        assert answer["query"] == "x=1&y=%2F"
        request = extension.last()
        assert request.header(b"x-remote-user") == "admin"
        assert request.header(b"x-remote-group") == "system:masters, system:authenticated"
        assert b"authorization" not in request.headers
        assert request.header(b"host") == "gizmos.default.svc:443"
        assert request.peer.certificate is not None
        shown = x509.load_der_x509_certificate(request.peer.certificate).subject.rfc4514_string()
        assert shown == "CN=front-proxy-client"
        status, answer = await session.call("POST", GIZMOS, {"metadata": {"name": "g"}})
        assert (status, answer["sent"]) == (201, '{"metadata":{"name":"g"}}')
        status, _ = await session.call("GET", GIZMOS, token=ALICE)
        assert status == 403  # who may not do it does not get there
        assert extension.last().header(b"x-remote-user") == "admin"
        session.token = ALICE
        await grant(server)
        status, _ = await session.call("GET", GIZMOS)
        assert (status, extension.last().header(b"x-remote-user")) == (200, "alice")
        assert extension.last().header(b"x-remote-uid") == "uid-of-alice"


async def grant(server: Apiserver) -> None:
    group = "rbac.authorization.k8s.io"
    async with open_session(server) as admin:
        rule = {"apiGroups": ["gizmo.io"], "resources": ["gizmos"], "verbs": ["list"]}
        role = {"metadata": {"name": "r"}, "rules": [rule]}
        await post(admin, f"/apis/{group}/v1/clusterroles", role)
        binding = {
            "metadata": {"name": "r"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "r"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "alice"}],
        }
        await post(admin, f"/apis/{group}/v1/clusterrolebindings", binding)


async def test_streams_and_upgrades_go_through(tmp_path: Path) -> None:
    async with world(tmp_path) as (server, _, extension):
        async with open_watch(server, f"{GIZMOS}?watch=1") as watch:
            assert [await watch.brief() for _ in range(2)] == [("ADDED", "a"), ("ADDED", "b")]
        async with await trio.open_tcp_stream(*server.address) as stream:
            headers = websocket_headers("v5.channel.k8s.io")
            path = f"{GIZMOS}/g/turn"
            answer = await shake_hands(stream, path, headers, method="GET", token="admin-token")
            assert answer.status == 101
            await stream.send_all(b"hello")
            with trio.fail_after(5):
                assert bytes(await stream.receive_some()) == b"HELLO"
        assert extension.last().header(b"x-remote-user") == "admin"


async def test_discovery_tells_of_both(tmp_path: Path) -> None:
    async with world(tmp_path) as (_, session, _):
        _, groups = await session.call("GET", "/apis")
        names = [group["name"] for group in groups["groups"]]
        at = names.index("gizmo.io")
        assert names[at - 2 : at] == ["policy", "rbac.authorization.k8s.io"]
        assert groups["groups"][at]["preferredVersion"] == {
            "groupVersion": "gizmo.io/v1", "version": "v1",
        }  # fmt: skip
        _, group = await session.call("GET", "/apis/gizmo.io")
        assert (group["kind"], group["name"]) == ("APIGroup", "gizmo.io")
        _, resources = await session.call("GET", "/apis/gizmo.io/v1")
        assert resources["resources"][0]["name"] == "gizmos"
        await session.call("GET", "/apis", accept=AGGREGATED_V2)
        items = {i["metadata"].get("name"): i for i in orjson.loads(session.text)["items"]}
        (version,) = items["gizmo.io"]["versions"]
        assert version["freshness"] == "Current"
        kind = {"group": "gizmo.io", "version": "v1", "kind": "Turn"}
        assert version["resources"] == [
            {
                "resource": "gizmos",
                "responseKind": {"group": "gizmo.io", "version": "v1", "kind": "Gizmo"},
                "scope": "Namespaced",
                "singularResource": "gizmo",
                "verbs": ["get", "list"],
                "shortNames": ["gz"],
                "subresources": [
                    {"subresource": "turn", "responseKind": kind, "verbs": ["create"]}
                ],
            }
        ]
        _, index = await session.call("GET", "/openapi/v3")
        where = index["paths"]["apis/gizmo.io/v1"]["serverRelativeURL"]
        assert where == "/openapi/v3/apis/gizmo.io/v1?hash=ABC"
        status, document = await session.call("GET", where)
        assert (status, document) == (200, {"openapi": "3.0.0"})


async def test_what_is_not_available(tmp_path: Path) -> None:
    async with world(tmp_path) as (server, session, extension):
        extension.is_well = False
        touched = {"metadata": {"labels": {"x": "y"}}}
        await session.call("PATCH", f"{SERVICES}/{NAME}", touched, content_type=MERGE)
        condition = await available(server, "FailedDiscoveryCheck")
        url = f"https://127.0.0.1:{extension.port}/apis/gizmo.io/v1"
        assert condition["message"] == (
            f"failing or missing response from {url}: bad status from {url}: 500"
        )
        status, text = await session.call("GET", GIZMOS)
        assert (status, text) == (503, "service unavailable\n")
        await session.call("GET", "/apis", accept=AGGREGATED_V2)
        items = {i["metadata"].get("name"): i for i in orjson.loads(session.text)["items"]}
        (version,) = items["gizmo.io"]["versions"]
        assert (version["freshness"], len(version["resources"])) == ("Stale", 1)
        extension.is_well = True
        await available(server, "Passed")
        status, _ = await session.call("GET", GIZMOS)
        assert status == 200
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/gizmos-1"
        await session.call("DELETE", path)
        condition = await available(server, "MissingEndpoints")
        assert condition["message"] == (
            'endpointslices for service/gizmos in "default" have no addresses with port name "s"'
        )
        await session.call("DELETE", "/api/v1/namespaces/default/services/gizmos")
        condition = await available(server, "ServiceNotFound")
        assert condition["message"] == 'service/gizmos in "default" is not present'
        status, _ = await session.call("DELETE", f"{SERVICES}/{NAME}")
        assert status == 200
        status, _ = await session.call("GET", GIZMOS)
        assert status == 404
        _, groups = await session.call("GET", "/apis")
        assert "gizmo.io" not in [group["name"] for group in groups["groups"]]


@pytest.mark.parametrize(
    ("spec", "status"),
    [({"caBundle": None, "insecureSkipTLSVerify": True}, 200), ({"caBundle": "wrong"}, 503)],
)
async def test_whom_to_trust(tmp_path: Path, spec: dict[str, Any], status: int) -> None:
    if spec["caBundle"] == "wrong":
        other = Authority(tmp_path / "other").path.read_bytes()
        spec = {"caBundle": base64.b64encode(other).decode()}
    async with world(tmp_path, **spec) as (_, session, _):
        found, answer = await session.call("GET", GIZMOS)
        assert found == status
        if status == 503:
            assert answer.startswith("error trying to reach service: dial tcp 127.0.0.1:")
            assert "certificate verify failed" in answer


async def test_definitions_are_registered_while_they_are_there(
    server: Apiserver, session: Session
) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "metadata": {"name": "gizmos.gizmo.io"},
        "spec": {
            "group": "gizmo.io",
            "scope": "Namespaced",
            "names": {"plural": "gizmos", "kind": "Gizmo"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await post(session, path, definition)
    condition = await available(server, "Local")
    assert condition["status"] == "True"
    _, found = await session.call("GET", f"{SERVICES}/{NAME}")
    assert found["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert found["spec"]["groupPriorityMinimum"] == 1000
    await session.call("DELETE", f"{path}/gizmos.gizmo.io")
    with trio.fail_after(5):
        while (await session.call("GET", f"{SERVICES}/{NAME}"))[0] != 404:
            await trio.sleep(0.01)


async def test_other_servers_can_read_whom_to_trust(tmp_path: Path) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
    async with open_extension(tmp_path) as (_, config):
        async with open_test_apiserver(**config) as server, open_session(server) as session:
            status, found = await session.call("GET", path)
    assert status == 200
    data = found["data"]
    assert data["requestheader-client-ca-file"].startswith("-----BEGIN CERTIFICATE-----")
    assert data["client-ca-file"].startswith("-----BEGIN CERTIFICATE-----")
    assert data["requestheader-allowed-names"] == '["front-proxy-client"]'
    assert data["requestheader-username-headers"] == '["X-Remote-User"]'


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"caBundle": "YWJj"},
        'spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle',
    ),
    (
        {"service": {"name": "s"}},
        "spec.service.namespace: Required value",
    ),
    (
        {
            "service": {"name": "s", "namespace": "n"},
            "caBundle": "YWJj",
            "insecureSkipTLSVerify": True,
        },
        "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
    ),
]


@pytest.mark.parametrize(("spec", "message"), REFUSED)
async def test_services_that_are_none(session: Session, spec: dict[str, Any], message: str) -> None:
    whole = {"group": "gizmo.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}
    body = {"metadata": {"name": NAME}, "spec": {**whole, **spec}}
    status, answer = await session.call("POST", SERVICES, body)
    assert (status, answer["message"]) == (
        422,
        f'APIService.apiregistration.k8s.io "{NAME}" is invalid: {message}',
    )
