"""How a node's kubelet is opened."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from k8slite.cluster.context import Context, Running

__all__ = ["open_kubelet"]


@asynccontextmanager
async def open_kubelet(context: Context) -> AsyncIterator[Running]:
    from k8slite.kubelet.config import KubeletConfig, KubeletTimings
    from k8slite.kubelet.eviction.thresholds import HARD, MEMORY
    from k8slite.kubelet.images.garbage import Policy
    from k8slite.kubelet.images.puller import docker_config_path
    from k8slite.kubelet.images.store import ImageStore
    from k8slite.kubelet.kubelet import open_kubelet
    from k8slite.kubelet.network import LoopbackNetwork
    from k8slite.kubelet.runtime.choose import open_runtime
    from k8slite.kubelet.runtime.interface import PodNetwork

    spec, place, number = context.spec, context.place, context.component.number
    root = context.layout.node(context.component.node)
    pod_cidr = place.pod_cidr(number)
    network: PodNetwork
    if spec.bridged:
        from k8slite.network.pods import BridgeNetwork

        network = BridgeNetwork(pod_cidr, root / "network")
    else:
        network = LoopbackNetwork(pod_cidr, root / "network")
    timings = context.timings
    config = KubeletConfig(
        client=context.client(context.component.node),
        node_name=context.component.node,
        node_ip=place.node_address(number),
        root_dir=str(root),
        listen=place.kubelet(number),
        tls=context.tls("ca", context.component.node).server,
        authorized_users=("kube-apiserver-kubelet-client",),
        pod_cidr=pod_cidr,
        cluster_dns=(place.dns_address,) if spec.bridged and spec.proxy != "none" else (),
        provider_id=f"k8slite://{spec.name}/{context.component.node}",
        docker_config=docker_config_path(),
        static_pod_path=str(root / "manifests"),
        device_plugins=importlib.util.find_spec("h2") is not None,
        # A person's disk is fuller than a server's, and not ours to judge.
        eviction=tuple(each for each in HARD if each.signal == MEMORY),
        image_policy=Policy(high_percent=95, low_percent=90),
        timings=KubeletTimings(
            node_status=timings.node_status,
            lease=timings.node_lease_renew,
            stats=timings.node_stats,
            lease_duration=timings.node_lease,
        ),
    )
    images = ImageStore(context.layout.images)
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(spec.runtime, root, context.host, images, _registry_command(spec.bridged))
        )
        kubelet = await stack.enter_async_context(
            open_kubelet(config, context.host, runtime, network)
        )
        yield Running(lambda: {"pods": len(kubelet.pods()), "runtime": spec.runtime})


def _registry_command(bridged: bool) -> list[str]:
    """Images are pulled in the machine's own network, where our parent, the zygote, lives: also
    from a registry at its localhost."""
    if not bridged:
        return []
    from k8slite.network.namespaces import command_inside

    return command_inside(f"/proc/{os.getppid()}/ns/net", [])
