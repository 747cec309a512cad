"""Scenarios for storms: services, budgets, roles, garbage, namespaces, nodes, autoscalers."""

from __future__ import annotations

from typing import Any

from k8slite.api.kinds import (
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    HORIZONTAL_POD_AUTOSCALERS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
)
from k8slite.api.meta import Obj, deleting, name, owner_reference
from k8slite.controllers.autoscaling.autoscale import POD_METRICS
from tests.client.fake_api import FakeApi
from tests.controllers.objects import (
    deployment,
    meta_of,
    namespace_obj,
    node,
    pod,
    replica_set,
    service,
)
from tests.controllers.storms import Scenario
from tests.controllers.test_autoscale import asking
from tests.controllers.test_disruption import budget
from tests.controllers.test_small import READ, WRITE, role, token

__all__ = ["SCENARIOS"]


def _served(api: FakeApi) -> None:
    api.add(SERVICES, service())
    for i in range(3):
        api.add(PODS, pod(f"p{i}", ip=f"10.0.0.{i}"))


def _addresses(api: FakeApi) -> Any:
    subsets = [s for each in api.all(ENDPOINTS) for s in each.get("subsets") or ()]
    return [sorted(a["ip"] for a in s.get("addresses") or ()) for s in subsets]


def _guarded(api: FakeApi) -> None:
    api.add(POD_DISRUPTION_BUDGETS, budget(minAvailable=2))
    for i in range(3):
        api.add(PODS, pod(f"p{i}"))


def _roles(api: FakeApi) -> None:
    selectors = [{"matchLabels": {"aggregate": "view"}}]
    api.add(CLUSTER_ROLES, role("total", aggregationRule={"clusterRoleSelectors": selectors}))
    api.add(CLUSTER_ROLES, role("a", "view", [READ]))


def _ephemeral(api: FakeApi) -> None:
    template = {"spec": {"accessModes": ["ReadWriteOnce"]}}
    for own in ("p", "q"):
        obj = pod(own)
        obj["spec"]["volumes"] = [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}]
        api.add(PODS, obj)


def _tokens(api: FakeApi) -> None:
    api.add(SECRETS, token("2023-11-14T22:14:00Z"))


def _family(api: FakeApi) -> None:
    top = api.add(DEPLOYMENTS, deployment())
    rs = replica_set()
    rs["metadata"]["ownerReferences"] = [owner_reference(DEPLOYMENTS, top)]
    middle = api.add(REPLICA_SETS, rs)
    for own in ("a", "b"):
        obj = pod(own, node="")
        obj["metadata"]["ownerReferences"] = [owner_reference(REPLICA_SETS, middle)]
        api.add(PODS, obj)
    api.add(PODS, pod("stranger", node=""))


def _space(api: FakeApi) -> None:
    space = namespace_obj("n")
    space["spec"] = {"finalizers": ["kubernetes"]}
    api.add(NAMESPACES, space)
    for i in range(3):
        api.add(CONFIG_MAPS, {"metadata": meta_of(f"c{i}")})


def _end_space(api: FakeApi) -> None:
    def end(obj: Obj) -> None:
        obj["metadata"]["deletionTimestamp"] = api.now()
        obj["status"] = {"phase": "Terminating"}

    api.change(NAMESPACES, "n", end)


def _nodes(api: FakeApi) -> None:
    """One pod is on a node that never was."""
    for own in "abcde":
        api.add(NODES, node(own))
        api.add(PODS, pod(f"on-{own}", node=own))
    api.add(PODS, pod("lost", node="gone"))


def _break_one(api: FakeApi) -> None:
    """Its kubelet says so itself."""
    broken = {"type": "Ready", "status": "False", "lastTransitionTime": api.now()}
    api.change(NODES, "a", lambda o: o["status"].update(conditions=[broken]))


def _nodes_outcome(api: FakeApi) -> Any:
    tainted = [
        (name(n), sorted((t["key"], t["effect"]) for t in n["spec"].get("taints") or ()))
        for n in api.all(NODES)
    ]
    return tainted, sorted(name(p) for p in api.all(PODS) if not deleting(p))


def _scaled(api: FakeApi) -> None:
    obj = deployment(replicas=2)
    obj["status"] = {"replicas": 2}
    api.add(DEPLOYMENTS, obj)
    for i in range(2):
        api.add(PODS, asking(f"p{i}"))
        usage = [{"name": "c", "usage": {"cpu": "900m"}}]
        metrics = {"metadata": meta_of(f"p{i}", labels={"app": "web"}), "containers": usage}
        api.add(POD_METRICS, {**metrics, "timestamp": api.now(), "window": "30s"})
    resource = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1,
        "maxReplicas": 4,
        "metrics": [{"type": "Resource", "resource": resource}],
    }
    api.add(HORIZONTAL_POD_AUTOSCALERS, {"metadata": meta_of("h", generation=1), "spec": spec})


SCENARIOS = [
    Scenario(
        name="endpoints",
        controllers=("endpoints-controller",),
        arrange=_served,
        act=lambda api: api.remove(PODS, "n/p0"),
        outcome=_addresses,
    ),
    Scenario(
        name="disruption",
        controllers=("disruption-controller",),
        arrange=_guarded,
        act=lambda api: api.remove(PODS, "n/p0"),
        outcome=lambda api: api.read(POD_DISRUPTION_BUDGETS, "n/b")["status"]["currentHealthy"],
    ),
    Scenario(
        name="aggregation",
        controllers=("clusterrole-aggregation-controller",),
        arrange=_roles,
        act=lambda api: api.add(CLUSTER_ROLES, role("b", "view", [WRITE])),
        outcome=lambda api: api.read(CLUSTER_ROLES, "total")["rules"],
    ),
    Scenario(
        name="ephemeral",
        controllers=("ephemeral-volume-controller", "persistentvolume-expander-controller"),
        arrange=_ephemeral,
        outcome=lambda api: sorted(map(name, api.all(PERSISTENT_VOLUME_CLAIMS))),
    ),
    Scenario(
        name="tokens",
        controllers=("token-cleaner-controller",),
        arrange=_tokens,
        outcome=lambda api: api.all(SECRETS),
        settle_seconds=90.0,
    ),
    Scenario(
        name="garbage",
        controllers=("garbage-collector-controller",),
        arrange=_family,
        act=lambda api: api.remove(DEPLOYMENTS, "n/web"),
        outcome=lambda api: (api.all(REPLICA_SETS), sorted(map(name, api.all(PODS)))),
    ),
    Scenario(
        name="spaces",
        controllers=("namespace-controller",),
        arrange=_space,
        act=_end_space,
        outcome=lambda api: (api.all(NAMESPACES), api.all(CONFIG_MAPS)),
    ),
    Scenario(
        name="nodes",
        controllers=(
            "node-lifecycle-controller",
            "taint-eviction-controller",
            "pod-garbage-collector-controller",
        ),
        arrange=_nodes,
        act=_break_one,
        outcome=_nodes_outcome,
        timings={"node_monitor_grace": 1e6},
        settle_seconds=120.0,
    ),
    Scenario(
        name="autoscaler",
        controllers=("horizontal-pod-autoscaler-controller",),
        arrange=_scaled,
        outcome=lambda api: api.read(DEPLOYMENTS, "n/web")["spec"]["replicas"],
    ),
]
