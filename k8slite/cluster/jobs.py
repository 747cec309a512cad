"""Short work that is done in a forked process of its own, for it needs what components have
imported. Synchronous; each job may be done again when it was cut short."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from k8slite.cluster.context import Context
from k8slite.cluster.layout import Layout
from k8slite.cluster.spec import ClusterSpec, Component, Place
from raftkv.os_host import OsHost

__all__ = ["JOBS"]


def _network(arguments: dict[str, Any]) -> dict[str, Any]:
    """Make the switch and the nodes of a cluster anew; where they are."""
    from k8slite.network import topology

    cluster = arguments["cluster"]
    topology.delete_cluster(cluster)  # of an attempt that was cut short
    switch = topology.create_switch(cluster, arguments["subnet"])
    nodes: list[topology.NodeNetwork] = []
    for number, pod_cidr in enumerate(arguments["pod_cidrs"], 1):
        nodes.append(topology.create_node(switch, number, pod_cidr, others=nodes))
    return {"netns": {f"node-{node.index}": node.netns for node in nodes}}


def _ready(arguments: dict[str, Any]) -> dict[str, Any]:
    """Wait until every node is ready and pods can be made in the namespace `default`."""
    spec, place = ClusterSpec.from_json(arguments["spec"]), Place.from_json(arguments["place"])
    context = Context(
        Component("apiserver", 1), spec, place, Layout(Path(arguments["root"])), OsHost("ready")
    )
    trio.run(_wait_ready, context)
    return {}


async def _wait_ready(context: Context) -> None:
    from k8slite.api.kinds import NODES, SERVICE_ACCOUNTS
    from k8slite.api.meta import get_condition
    from k8slite.api.status import ApiError
    from k8slite.client.client import open_client
    from k8slite.client.errors import ClientError

    async with open_client(context.client("admin"), context.host) as client:
        while True:
            try:
                nodes = (await client.list(NODES)).items
                conditions = [get_condition(node, "Ready") for node in nodes]
                ready = [c for c in conditions if c is not None and c["status"] == "True"]
                if len(ready) >= context.spec.nodes:
                    await client.get(SERVICE_ACCOUNTS, "default", "default")
                    return
            except (ApiError, ClientError):
                pass  # not yet
            await trio.sleep(READY_POLL_SECONDS)


READY_POLL_SECONDS: Final = 0.05


def _clean(arguments: dict[str, Any]) -> dict[str, Any]:
    """Pods, mounts, control groups and the network of a cluster whose components have ended."""
    from k8slite.cluster.cleanup import clean_network, clean_nodes

    layout = Layout(Path(arguments["root"]))
    clean_nodes(layout)
    clean_network(layout.network(arguments["cluster"]))
    return {}


def _node_pods(arguments: dict[str, Any]) -> dict[str, Any]:
    """What happens to a machine happens to its pods: kill, pause or resume those of a node."""
    from k8slite.kubelet.cleanup import cleanup, processes_of

    root = Layout(Path(arguments["root"])).node(arguments["node"])
    if arguments["action"] == "kill":
        cleanup(root)
        return {}
    number = signal.SIGSTOP if arguments["action"] == "pause" else signal.SIGCONT
    for pid in processes_of(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return {}


JOBS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "network": _network,
    "ready": _ready,
    "clean": _clean,
    "node-pods": _node_pods,
}
