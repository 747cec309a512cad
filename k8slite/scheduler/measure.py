"""How long decisions take, apart from everything else: `python -m k8slite.scheduler.measure`.

Owns nothing but a snapshot made for the purpose: nodes in three zones, pods of ten applications.
Prints one JSON object. `bench/scheduler.py` runs it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

from k8slite.api.meta import Obj
from k8slite.scheduler.config import default_profile
from k8slite.scheduler.decide import decide
from k8slite.scheduler.framework import Handle
from k8slite.scheduler.pod_info import pod_info
from k8slite.scheduler.snapshot import Snapshot

__all__ = ["SHAPES", "a_node", "a_pod", "main"]

SHAPES = ("plain", "spread", "affinity")
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def a_node(number: int) -> Obj:
    own = f"fake-{number:05}"
    labels = {HOST: own, ZONE: f"zone-{number % 3}"}
    size = {"cpu": "32", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": "8"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": own, "labels": labels},
        "spec": {},
        "status": {"allocatable": size, "capacity": size, "conditions": [ready]},
    }


def a_pod(number: int, shape: str) -> Obj:
    app = f"app-{number % 10}"
    selector = {"matchLabels": {"app": app}}
    resources = {"requests": {"cpu": "100m", "memory": "256Mi"}}
    spec: Obj = {
        "containers": [{"name": "c", "image": "fake", "resources": resources}],
        "tolerations": [{"operator": "Exists"}],
    }
    if shape == "spread":
        rule = {"maxSkew": 1, "topologyKey": ZONE, "labelSelector": selector}
        spec["topologySpreadConstraints"] = [{**rule, "whenUnsatisfiable": "DoNotSchedule"}]
    elif shape == "affinity":
        term = {"topologyKey": HOST, "labelSelector": selector}
        weighted = [{"weight": 100, "podAffinityTerm": term}]
        rules = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
        spec["affinity"] = {"podAntiAffinity": rules}
    metadata = {"name": f"pod-{number:05}", "namespace": "default", "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def measure(nodes: int, pods: int, shape: str) -> dict[str, float]:
    """Microseconds a decision, when the pods come one after another to empty nodes."""
    snapshot = Snapshot()
    profile = default_profile(Handle(snapshot))
    for number in range(nodes):
        snapshot.put_node(a_node(number))
    infos = []
    for number in range(pods):
        pod = a_pod(number, shape)
        pod["metadata"]["uid"] = pod["metadata"]["name"]
        infos.append(pod_info(pod))
    rng, start, times = random.Random(1), 0, []
    for info in infos:
        began = time.perf_counter()
        decision = decide(info, snapshot, start, rng, profile)
        snapshot.assume(info, decision.node)
        times.append(time.perf_counter() - began)
        start = (start + decision.looked_at) % nodes
    times.sort()
    return {
        "nodes": nodes,
        "pods": pods,
        "mean_us": sum(times) / len(times) * 1e6,
        "p50_us": times[len(times) // 2] * 1e6,
        "p99_us": times[len(times) * 99 // 100] * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--shape", choices=SHAPES, default="plain")
    arguments = parser.parse_args()
    result = measure(arguments.nodes, arguments.pods, arguments.shape)
    sys.stdout.write(json.dumps({"shape": arguments.shape, **result}) + "\n")


if __name__ == "__main__":
    main()
