"""What a load balancer is told at the health check node port."""

from __future__ import annotations

import json

import trio
import trio.testing

from k8slite.client.background import open_background
from k8slite.proxy.health import HealthServers
from k8slite.proxy.table import build_table
from raftkv.os_host import TcpNet
from tests.ports import free_port
from tests.proxy.objects import endpoint, endpoint_slice, service

HERE = "127.100.78.30"


async def get(port: int) -> tuple[bytes, dict[str, object]]:
    async with await trio.open_tcp_stream(HERE, port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join([data async for data in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], json.loads(body)


async def test_health_check_node_ports() -> None:
    port = free_port(HERE)
    local = service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=port)
    near, far = endpoint("10.244.1.2"), endpoint("10.244.2.2", "node-2")
    async with open_background() as nursery:
        servers = HealthServers(HERE, TcpNet(), nursery)
        assert await servers.sync(build_table([local], [endpoint_slice(near, far)], "node-1")) == []
        status, body = await get(port)
        assert status == b"HTTP/1.1 200 OK"
        assert body == {
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": 1,
            "serviceProxyHealthy": True,
        }
        await servers.sync(build_table([local], [endpoint_slice(far)], "node-1"))
        assert (await get(port))[0] == b"HTTP/1.1 503 Service Unavailable"
        other = HealthServers(HERE, TcpNet(), nursery)
        (problem,) = await other.sync(build_table([local], [], "node-1"))
        assert problem.startswith(f"default/web has no health check at port {port}")
        await servers.sync({})
        assert servers.ports == []
        await trio.testing.wait_all_tasks_blocked()
        assert await other.sync(build_table([local], [], "node-1")) == []
