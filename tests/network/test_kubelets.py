"""Real containers on two nodes: pods of real kubelets, joined by real namespaces and services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from k8slite.api.kinds import PODS
from k8slite.kubelet.cleanup import cleanup, leftovers
from k8slite.kubelet.config import KubeletTimings
from k8slite.kubelet.images.store import ImageStore
from k8slite.kubelet.runtime.oci import open_oci_runtime
from k8slite.network.namespaces import command_inside
from k8slite.network.pods import BridgeNetwork
from k8slite.proxy.nftables import NftablesWriter
from k8slite.proxy.table import build_table
from raftkv.os_host import OsHost
from tests.kubelet.world import KubeletApi, Node, container, open_node, pod
from tests.network.lab import Lab, open_lab
from tests.proxy.objects import endpoint, endpoint_slice, service

pytestmark = [pytest.mark.root, pytest.mark.tool("runc"), pytest.mark.tool("nft")]
FAST = KubeletTimings(backoff_initial=0.2, backoff_max=1.0, retry=0.1, relist=0.5)


@asynccontextmanager
async def open_kubelets(
    lab: Lab, root: Path, api: KubeletApi, **config: Any
) -> AsyncIterator[list[Node]]:
    """A kubelet with real containers for each node of the lab, over one API."""
    images = ImageStore(root / "images")
    async with AsyncExitStack() as stack:
        kubelets = []
        for index, there in enumerate(lab.nodes, 1):
            own = root / f"node-{index}"
            runtime = await stack.enter_async_context(open_oci_runtime(own, OsHost(), images))
            network = BridgeNetwork(there.pod_cidr, own / "network", node_netns=there.netns)
            kubelet = open_node(
                runtime,
                api=api,
                host=OsHost(),
                network=network,
                node_name=f"node-{index}",
                node_ip=there.address,
                root_dir=str(own),
                timings=FAST,
                **config,
            )
            kubelets.append(await stack.enter_async_context(kubelet))
        yield kubelets


async def test_containers_reach_each_other_and_a_service(tmp_path: Path) -> None:
    api = KubeletApi()
    serve = "echo hello from $HOSTNAME > /index.html; exec httpd -f -p 8080 -h /"
    ask = (
        "until wget -qO- http://$IP:8080; do sleep 0.1; done;"
        "until wget -qO- http://10.96.0.10; do sleep 0.1; done; sleep 1000"
    )
    try:
        with open_lab("kubelettest", 2) as lab:
            async with open_kubelets(lab, tmp_path, api) as (one, _):
                server = pod("server", containers=[container("c", "sh", "-c", serve)])
                server["spec"]["nodeName"] = "node-1"
                api.add(PODS, server)
                await one.until(lambda: one.condition("Ready", "default/server") == "True")
                ip = one.status("default/server")["podIP"]
                assert ip == "10.244.1.2"
                slices = [endpoint_slice(endpoint(ip))]
                for index, there in enumerate(lab.nodes, 1):
                    writer = NftablesWriter(
                        "10.244.0.0/16", command=command_inside(there.netns, [])
                    )
                    await writer.sync(build_table([service()], slices, f"node-{index}"))
                env = [{"name": "IP", "value": ip}]
                client = pod("client", containers=[container("c", "sh", "-c", ask, env=env)])
                client["spec"]["nodeName"] = "node-2"
                api.add(PODS, client)

                def answers() -> int:
                    logs = (tmp_path / "node-2" / "logs").glob("default_client_*/c/0.log")
                    return sum(path.read_text().count("hello from server") for path in logs)

                await one.until(lambda: answers() == 2)
    finally:
        for node in ("node-1", "node-2"):
            cleanup(tmp_path / node)
    assert leftovers(tmp_path / "node-1") == leftovers(tmp_path / "node-2") == []
