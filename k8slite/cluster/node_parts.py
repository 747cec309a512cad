"""How the components of a node are opened: its kubelet and its proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from k8slite.cluster.context import Context, Running

__all__ = ["open_kubelet", "open_proxy"]

PROXY_SYNC_SECONDS: Final = 0.1
"""Here a sync is cheap, and a rollout is watched by a person."""


@asynccontextmanager
async def open_kubelet(context: Context) -> AsyncIterator[Running]:
    from k8slite.kubelet.config import KubeletConfig, KubeletTimings
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
        provider_id=f"k8slite://{spec.name}/{context.component.node}",
        timings=KubeletTimings(
            node_status=timings.node_status,
            lease=timings.node_lease_renew,
            lease_duration=timings.node_lease,
        ),
    )
    images = ImageStore(context.layout.images)
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(
            open_runtime(spec.runtime, root, context.host, images)
        )
        kubelet = await stack.enter_async_context(
            open_kubelet(config, context.host, runtime, network)
        )
        yield Running(lambda: {"pods": len(kubelet.pods()), "runtime": spec.runtime})


@asynccontextmanager
async def open_proxy(context: Context) -> AsyncIterator[Running]:
    from k8slite.proxy.proxy import ProxyConfig, open_proxy
    from k8slite.proxy.userspace import open_userspace_writer
    from k8slite.proxy.writer import Writer

    mode, place = context.spec.proxy, context.place
    config = ProxyConfig(
        client=context.client("proxy"),
        node_name=context.component.node,
        min_sync_seconds=PROXY_SYNC_SECONDS,
    )
    async with AsyncExitStack() as stack:
        writer: Writer
        if mode == "iptables":
            from k8slite.proxy.iptables import IptablesWriter

            writer = IptablesWriter(place.cluster_cidr)
        elif mode == "nftables":
            from k8slite.proxy.nftables import NftablesWriter

            writer = NftablesWriter(place.cluster_cidr)
        else:
            addresses = (place.node_address(context.component.number),)
            writer = await stack.enter_async_context(
                open_userspace_writer(addresses, context.host.net)
            )
        proxy = await stack.enter_async_context(open_proxy(config, context.host, writer))

        def status() -> dict[str, Any]:
            return {
                "mode": mode,
                "ports": proxy.ports,
                "syncs": proxy.syncs,
                "problems": list(proxy.problems),
            }

        yield Running(status)
