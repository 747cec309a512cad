"""metrics.k8s.io: what kubelets say of usage, as objects, lists and tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio

from k8slite.api.quantity import milli_value
from k8slite.api.resource_metrics import pod_metrics
from k8slite.apiserver import summaries
from tests.apiserver.support import ALICE, Session, open_session, open_test_apiserver

TIME = "2026-01-02T03:04:05Z"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def measured(cores: int | None, memory: int) -> dict[str, Any]:
    cpu: dict[str, Any] = {"time": TIME, "usageCoreNanoSeconds": 1}
    if cores is not None:
        cpu |= {"usageNanoCores": cores, "windowSeconds": 10.004}
    return {"cpu": cpu, "memory": {"time": TIME, "workingSetBytes": memory}}


def pod_of(name: str, uid: str, *containers: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": f"c{n}", **each} for n, each in enumerate(containers)]
    reference = {"name": name, "namespace": "default", "uid": uid}
    return {"podRef": reference, "containers": named}


@asynccontextmanager
async def open_kubelet(summary: dict[str, Any]) -> AsyncIterator[tuple[int, list[str]]]:
    asked: list[str] = []

    async def serve(stream: trio.SocketStream) -> None:
        head = bytearray()
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        asked.append(head.split(b"\r\n", 1)[0].decode())
        body = orjson.dumps(summary)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1], asked
        nursery.cancel_scope.cancel()


async def add_node(session: Session, name: str, port: int) -> None:
    node = {"metadata": {"name": name, "labels": {"zone": name}}}
    assert (await session.call("POST", "/api/v1/nodes", node))[0] == 201
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    path = f"/api/v1/nodes/{name}/status"
    merge = "application/merge-patch+json"
    code, _ = await session.call("PATCH", path, {"status": status}, content_type=merge)
    assert code == 200


async def add_pod(session: Session, name: str, node: str) -> str:
    pod = {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }
    code, made = await session.call("POST", "/api/v1/namespaces/default/pods", pod)
    assert code == 201, made
    uid: str = made["metadata"]["uid"]
    return uid


async def test_usage_of_nodes_and_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    summary: dict[str, Any] = {"node": measured(1_500_000_000, 4096 * 1024), "pods": []}
    async with (
        open_kubelet(summary) as (port, asked),
        open_test_apiserver() as server,
        open_session(server) as session,
    ):
        await add_node(session, "n1", port)
        await add_node(session, "gone", 1)
        web, new = [await add_pod(session, name, "n1") for name in ("web", "new")]
        summary["pods"] = [
            pod_of("web", web, measured(250_000_000, 1500), measured(1_234_567, 2048)),
            pod_of("new", new, measured(None, 2048)),
            pod_of("of-nobody", "u", measured(1, 1)),
        ]
        root = "/apis/metrics.k8s.io/v1beta1"
        code, nodes = await session.call("GET", f"{root}/nodes")
        assert code == 200
        assert (nodes["kind"], nodes["apiVersion"]) == (
            "NodeMetricsList",
            "metrics.k8s.io/v1beta1",
        )
        [node] = nodes["items"]
        assert node["metadata"]["name"] == "n1"
        assert node["metadata"]["labels"] == {"zone": "n1"}
        assert node["usage"] == {"cpu": "1500m", "memory": "4096Ki"}
        assert (node["timestamp"], node["window"]) == (TIME, "10.004s")

        _, pods = await session.call("GET", f"{root}/pods")
        [pod] = pods["items"]
        assert pod["metadata"]["labels"] == {"app": "web"}
        assert pod["containers"] == [
            {"name": "c0", "usage": {"cpu": "250m", "memory": "2Ki"}},
            {"name": "c1", "usage": {"cpu": "1234567n", "memory": "2Ki"}},
        ]
        space = f"{root}/namespaces/default/pods"
        assert (await session.call("GET", f"{space}/web"))[1]["containers"] == pod["containers"]
        for query, count in (
            ("labelSelector=app%3Dweb", 1),
            ("labelSelector=app%3Dnew", 0),
            ("fieldSelector=metadata.name%3Dweb", 1),
        ):
            _, found = await session.call("GET", f"{space}?{query}")
            assert len(found["items"]) == count, query
        assert asked == ["GET /stats/summary?only_cpu_and_memory=true HTTP/1.1"], "remembered"
        monkeypatch.setattr(summaries, "FRESH_SECONDS", 0.0)
        await session.call("GET", f"{root}/nodes/n1")
        assert len(asked) == 2

        for path in (f"{space}/new", f"{space}/absent", f"{root}/nodes/gone"):
            code, refused = await session.call("GET", path)
            assert (code, refused["reason"]) == (404, "NotFound")
        code, refused = await session.call("DELETE", f"{space}/web")
        assert code == 405
        code, refused = await session.call("GET", f"{root}/nodes", token=ALICE)
        assert (code, refused["reason"]) == (403, "Forbidden")

        _, table = await session.call("GET", f"{root}/pods", accept=TABLE)
        assert [column["name"] for column in table["columnDefinitions"]] == [
            "Name",
            "CPU",
            "Memory",
            "Window",
        ]
        assert table["rows"][0]["cells"] == ["web", "251234567n", "4Ki", "10.004s"]


async def test_it_is_found(session: Session) -> None:
    _, groups = await session.call("GET", "/apis")
    assert "metrics.k8s.io" in [group["name"] for group in groups["groups"]]
    _, found = await session.call("GET", "/apis/metrics.k8s.io/v1beta1")
    assert {(r["name"], r["kind"], tuple(r["verbs"])) for r in found["resources"]} == {
        ("nodes", "NodeMetrics", ("get", "list")),
        ("pods", "PodMetrics", ("get", "list")),
    }
    code, document = await session.call("GET", "/openapi/v3/apis/metrics.k8s.io/v1beta1")
    assert code == 200
    assert any(name.endswith("PodMetrics") for name in document["components"]["schemas"])
    assert (await session.call("GET", "/openapi/v2"))[0] == 200
    _, role = await session.call(
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregated-metrics-reader",
    )
    assert role["rules"][0]["resources"] == ["nodes", "pods"]


def test_a_pod_has_metrics_when_all_its_containers_do() -> None:
    pod = {"metadata": {"name": "p", "namespace": "d", "uid": "u"}}
    some = pod_of("p", "u", measured(5, 1), measured(None, 1))
    assert pod_metrics(pod, some, TIME) is None
    assert pod_metrics(pod, pod_of("p", "u"), TIME) is None
    whole = pod_metrics(pod, pod_of("p", "u", measured(5, 1)), TIME)
    assert whole is not None
    assert milli_value(whole["containers"][0]["usage"]["cpu"]) == 1
