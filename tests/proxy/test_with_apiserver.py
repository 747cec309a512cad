"""The whole way: objects created through a real apiserver become connections."""

from __future__ import annotations

import trio

from k8slite.api.kinds import ENDPOINT_SLICES, SERVICES
from k8slite.client.client import ClientConfig, open_client
from k8slite.proxy.proxy import ProxyConfig, open_proxy
from k8slite.proxy.userspace import open_userspace_writer
from raftkv.os_host import OsHost
from tests.apiserver.support import ADMIN, open_test_apiserver
from tests.ports import free_port
from tests.proxy.objects import endpoint, endpoint_slice
from tests.proxy.test_userspace import ask, open_echo


async def test_a_service_created_by_a_client_is_reached() -> None:
    host = OsHost("node-1")
    async with (
        open_test_apiserver(service_cidr="127.96.0.0/16") as server,
        open_echo("127.244.77.30", b"hello") as backend,
        open_userspace_writer(["127.100.77.30"], host.net) as writer,
    ):
        client_config = ClientConfig(endpoints=(server.addresses[0],), token=ADMIN)
        config = ProxyConfig(client=client_config, node_name="node-1", min_sync_seconds=0.01)
        async with (
            open_client(client_config, host) as client,
            open_proxy(config, host, writer) as proxy,
        ):
            await proxy.wait_synced()
            port = free_port("127.96.0.1")
            service = await client.create(
                SERVICES,
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "web", "namespace": "default"},
                    "spec": {"ports": [{"name": "http", "port": port}]},
                },
            )
            ends = endpoint_slice(endpoint(backend.ip), port=backend.port)
            ends |= {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
            await client.create(ENDPOINT_SLICES, ends)
            with trio.fail_after(20):
                while f"{service['spec']['clusterIP']}:{port}/TCP" not in writer.fronts:
                    await trio.sleep(0.01)
            assert await ask(service["spec"]["clusterIP"], port) == b"hello"
