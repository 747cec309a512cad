"""Webhooks that are pods in another network: the apiserver goes through their node's kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from k8slite.streaming.bytes import ByteStream, relay
from tests.apiserver.hooks import Hooks, create, register
from tests.apiserver.support import Session, open_session, open_test_apiserver


class Kubelet:
    """Leads every connection for a pod on to one port of this machine."""

    def __init__(self, leads_to: int) -> None:
        self.leads_to = leads_to
        self.asked: list[str] = []
        self.refuses = False

    async def serve(self, stream: trio.SocketStream) -> None:
        head = bytearray()
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        self.asked.append(head.split(b"\r\n", 1)[0].decode())
        if self.refuses:
            await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nno pod")
            return
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        await stream.send_all(switch)
        async with await trio.open_tcp_stream("127.0.0.1", self.leads_to) as inner:
            await relay(ByteStream.over(stream, b""), ByteStream.over(inner, b""))


@asynccontextmanager
async def open_kubelet(leads_to: int) -> AsyncIterator[tuple[Kubelet, int]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    kubelet = Kubelet(leads_to)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, kubelet.serve, [listener])
        yield kubelet, listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def post(session: Session, path: str, body: dict[str, Any]) -> None:
    status, answer = await session.call("POST", path, body)
    assert status == 201, answer


async def test_a_webhook_in_another_network(hooks: Hooks) -> None:
    port = int(hooks.url.rpartition(":")[2])
    async with (
        open_kubelet(port) as (kubelet, kubelet_port),
        open_test_apiserver() as server,
        open_session(server) as session,
    ):
        await post(session, "/api/v1/nodes", {"metadata": {"name": "n"}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet_port}},
        }
        merge = "application/merge-patch+json"
        await session.call(
            "PATCH", "/api/v1/nodes/n/status", {"status": status}, content_type=merge
        )
        service = {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}
        await post(session, "/api/v1/namespaces/default/services", service)
        slice_ = {
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": ["10.244.7.7"],
                    "nodeName": "n",
                    "targetRef": {"kind": "Pod", "name": "hook-x", "namespace": "default"},
                }
            ],
            "ports": [{"port": 8443}],
        }
        await post(session, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)
        hooks.answers["/x"] = lambda request: {"status": {"message": "no"}, "allowed": False}
        config = {
            "service": {"name": "hook", "namespace": "default", "path": "/x"},
            "caBundle": hooks.ca,
        }
        await register(session, hooks, "validating", "a", "x", clientConfig=config)
        code, answer = await create(session)
        assert (code, hooks.paths()) == (400, ["/x"])
        assert answer["message"] == 'admission webhook "x.example.org" denied the request: no'
        assert kubelet.asked == ["GET /podDial/default/hook-x?port=8443 HTTP/1.1"]
        kubelet.refuses = True
        await server.core.backends.aclose()
        code, answer = await create(session)
        assert code == 500
        assert "dial tcp 10.244.7.7:8443: " in answer["message"]
        assert "no pod" in answer["message"]
