"""Health check node ports: tells load balancers whether this node has endpoints of a service.

Of services with the external traffic policy Local; as kube-proxy: 200 where there are ready
endpoints here, else 503, with their number as JSON. One request a connection.
"""

from __future__ import annotations

import json
import logging
from typing import Final

import trio

from k8slite.proxy.table import ServicePort, Table
from raftkv.host import Address, Listener, Net

__all__ = ["HealthServers"]

log = logging.getLogger(__name__)

REQUEST_BYTES_MAX: Final = 16384
REQUEST_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 64
"""A service. Full: closed at once."""


class HealthServers:
    """Listens at `address` on the ports that the table has. One task calls `sync`."""

    def __init__(self, address: str, net: Net, nursery: trio.Nursery) -> None:
        self._address = address
        self._net = net
        self._nursery = nursery
        self._servers: dict[int, _Server] = {}

    async def sync(self, table: Table) -> list[str]:
        """What could not be listened on, one sentence each."""
        wanted = {entry.health_port: entry for entry in table.values() if entry.health_port}
        for port in [port for port in self._servers if port not in wanted]:
            await self._servers.pop(port).aclose()
        problems = []
        for port, entry in wanted.items():
            server = self._servers.get(port)
            if server is None:
                try:
                    listener = await self._net.listen(Address(self._address, port))
                except OSError as error:
                    where = f"{entry.namespace}/{entry.name}"
                    problems.append(f"{where} has no health check at port {port}: {error}")
                    continue
                server = self._servers[port] = _Server(listener)
                self._nursery.start_soon(server.run, name=f"health check {port}")
            server.entry = entry
        return problems

    @property
    def ports(self) -> list[int]:
        return sorted(self._servers)


class _Server:
    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._connections = 0
        self.entry: ServicePort | None = None

    async def aclose(self) -> None:
        await self._listener.aclose()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    stream = await self._listener.accept()
                    if self._connections >= CONNECTIONS_MAX:
                        await stream.aclose()
                        continue
                    self._connections += 1
                    nursery.start_soon(self._serve, stream)
            except trio.ClosedResourceError:
                nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await self._listener.aclose()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with stream:
                with trio.move_on_after(REQUEST_SECONDS):
                    request = b""
                    while b"\r\n\r\n" not in request and len(request) < REQUEST_BYTES_MAX:
                        data = await stream.receive_some(4096)
                        if not data:
                            return
                        request += data
                    await stream.send_all(self._answer())
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.debug("health check error=%s", error)
        finally:
            self._connections -= 1

    def _answer(self) -> bytes:
        entry = self.entry
        assert entry is not None
        count = entry.ready_here
        body = json.dumps(
            {
                "service": {"namespace": entry.namespace, "name": entry.name},
                "localEndpoints": count,
                "serviceProxyHealthy": True,
            }
        ).encode()
        head = (
            f"HTTP/1.1 {'200 OK' if count else '503 Service Unavailable'}\r\n"
            "Content-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"
            f"X-Load-Balancing-Endpoint-Weight: {count}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body
