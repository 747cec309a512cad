"""The kubelet against the real apiserver, as its node's own user."""

from __future__ import annotations

from pathlib import Path

import trio

from k8slite.api.kinds import CONFIG_MAPS, LEASES, NODES, PODS
from k8slite.api.meta import Obj, condition_is
from k8slite.apiserver import StaticToken
from k8slite.client.client import Client, ClientConfig, open_client
from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.kubelet import open_kubelet
from k8slite.kubelet.network import LoopbackNetwork
from k8slite.kubelet.runtime.interface import Runtime
from k8slite.kubelet.runtime.process import open_process_runtime
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.apiserver.support import ADMIN, TOKENS, open_test_apiserver
from tests.kubelet.world import config

NODE_TOKEN = StaticToken("node-token", "system:node:node-1", "", ("system:nodes",))


def web_pod() -> Obj:
    script = 'cd "$K8SLITE_ROOT"; echo hi > index.html; echo on; exec httpd -f -p $POD_IP:8080'
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {
                    "name": "web",
                    "image": "busybox:1.36",
                    "command": ["sh", "-c", script],
                    "env": [
                        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
                    ],
                    "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
                }
            ],
        },
    }


async def pod_when(api: Client, condition: str) -> Obj:
    with trio.fail_after(20):
        while True:
            pod = await api.get(PODS, "web", "default")
            if condition_is(pod, condition):
                return pod
            await trio.sleep(0.05)


async def test_a_pod_from_create_to_delete(tmp_path: Path) -> None:
    host = OsHost()
    try:
        async with open_test_apiserver(tokens=(*TOKENS, NODE_TOKEN)) as server:
            endpoints = (server.addresses[0],)
            node_client = ClientConfig(endpoints=endpoints, token=NODE_TOKEN.token)
            admin_client = ClientConfig(endpoints=endpoints, token=ADMIN)
            async with (
                open_client(admin_client, host) as api,
                open_process_runtime(tmp_path, host, ImageStore(tmp_path / "images")) as runtime,
            ):
                await _play(api, node_client, host, runtime, tmp_path)
    finally:
        cleanup(tmp_path)
    assert leftovers(tmp_path) == []


async def _play(
    api: Client, node_client: ClientConfig, host: OsHost, runtime: Runtime, root: Path
) -> None:
    settings = config(
        str(root),
        client=node_client,
        serve=True,
        service_links=True,
        listen=Address("127.100.0.1", 0),
    )
    network = LoopbackNetwork("127.244.9.0/24")
    ca = {"metadata": {"name": "kube-root-ca.crt", "namespace": "default"}, "data": {"ca.crt": "x"}}
    await api.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **ca})
    async with open_kubelet(settings, host, runtime, network):
        node = await api.get(NODES, "node-1")
        assert condition_is(node, "Ready")
        await api.create(PODS, web_pod())
        pod = await pod_when(api, "Ready")
        assert pod["status"]["podIP"] == "127.244.9.1"
        (container,) = await runtime.list_containers()
        script = "echo $KUBERNETES_SERVICE_PORT; ls $K8SLITE_ROOT/var/run/secrets/*/*"
        result = await runtime.exec_sync(container.id, ("sh", "-c", script))
        assert result.stdout.split()[0] == b"443"
        assert result.stdout.split()[1:] == [b"ca.crt", b"namespace", b"token"]
        answer = await api.raw("GET", "/api/v1/namespaces/default/pods/web/log")
        assert (answer.status, answer.body) == (200, b"on\n")
        assert (await api.get(LEASES, "node-1", "kube-node-lease"))["spec"]["holderIdentity"]
        await api.delete(PODS, "web", "default")
        with trio.fail_after(20):
            while (await api.list(PODS, "default")).items:
                await trio.sleep(0.05)
            while await runtime.list_pod_sandbox():
                await trio.sleep(0.05)
