"""What is played on simulated clusters, here and in other processes: `python -m ... NAME SEED`."""

from __future__ import annotations

import logging
import sys

import trio

from k8slite.api.kinds import DEPLOYMENTS, NODES, PODS
from k8slite.api.meta import Obj
from k8slite.testing import SimCluster, run_cluster

__all__ = ["evictions", "running_pods", "web"]


def web(replicas: int, name: str = "web") -> Obj:
    """A Deployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    }


async def running_pods(cluster: SimCluster) -> dict[str, str]:
    """Node by name of every pod that is ready and not on its way out."""
    pods = await cluster.client().list(PODS, "default")
    return {
        pod["metadata"]["name"]: pod["spec"]["nodeName"]
        for pod in pods.items
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in pod["status"].get("conditions", ())
        )
    }


async def evictions(cluster: SimCluster) -> dict[str, float]:
    """Kill every leader, then a node; what became available again after how many seconds."""
    client = cluster.client()
    await client.create(DEPLOYMENTS, web(4))

    async def four() -> bool:
        return len(await running_pods(cluster)) == 4

    with trio.fail_after(120):
        await cluster.eventually(four)
    after: dict[str, float] = {}
    for role in ("raft", "scheduler", "controller-manager"):
        began = cluster.now()
        old = await cluster.kill_leader(role)
        with trio.fail_after(120):
            while await cluster.wait_leader(role) == old:
                await trio.sleep(0.5)
        after[role] = cluster.now() - began
        await cluster.restart(old)

    victim = sorted((await running_pods(cluster)).values())[0]
    began = cluster.now()
    cluster.crash(victim)

    async def moved() -> bool:
        nodes = (await running_pods(cluster)).values()
        return len(nodes) == 4 and victim not in nodes

    with trio.fail_after(600):
        await cluster.eventually(moved)
    after["node"] = cluster.now() - began
    await cluster.restart(victim)

    async def back() -> bool:
        node = await client.get(NODES, victim)
        ready = [c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"]
        return ready == ["True"] and not node["spec"].get("taints")

    with trio.fail_after(120):
        await cluster.eventually(back)
    return after


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    outcome = run_cluster(int(sys.argv[2]), globals()[sys.argv[1]])
    sys.stdout.write(f"{outcome.trace_hash}\n")
