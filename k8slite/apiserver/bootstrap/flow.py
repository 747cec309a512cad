"""The FlowSchemas and PriorityLevelConfigurations that a stock server has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k8slite.api.apply import server_side_apply
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, format_time
from k8slite.apiserver.flow.control import FLOW_SCHEMAS, LEVELS

__all__ = ["PRODUCER", "flow_objects", "with_found_level"]

PRODUCER = "api-priority-and-fairness-config-producer-v1"
_CONSUMER = "api-priority-and-fairness-config-consumer-v1"
_AUTOMATIC = {"apf.kubernetes.io/autoupdate-spec": "true"}

_QUEUED = {
    # name: shares, queues, hand, percent that other levels may borrow
    "system": (30, 64, 6, 33),
    "node-high": (40, 64, 6, 25),
    "leader-election": (10, 16, 4, 0),
    "workload-high": (40, 128, 6, 50),
    "workload-low": (100, 128, 6, 90),
    "global-default": (20, 128, 6, 50),
}
QUEUE_LENGTH = 50


def flow_objects() -> Iterator[tuple[Kind, Obj]]:
    """All of them, without identity."""
    yield LEVELS, _level("exempt", {"type": "Exempt", "exempt": _lends(0, shares=0)})
    reject = {**_lends(0, shares=5), "limitResponse": {"type": "Reject"}}
    yield LEVELS, _level("catch-all", {"type": "Limited", "limited": reject})
    for name, (shares, queues, hand, lendable) in _QUEUED.items():
        queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH}
        response = {"type": "Queue", "queuing": queuing}
        limited = {**_lends(lendable, shares=shares), "limitResponse": response}
        yield LEVELS, _level(name, {"type": "Limited", "limited": limited})
    for name, level, precedence, by, rules in _schemas():
        spec: Obj = {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
        }
        if by:
            spec["distinguisherMethod"] = {"type": by}
        spec["rules"] = rules
        yield FLOW_SCHEMAS, {"metadata": {"name": name, "annotations": _AUTOMATIC}, "spec": spec}


def with_found_level(obj: Obj, now: float) -> Obj:
    """A FlowSchema with the status that its level exists."""
    level = obj["spec"]["priorityLevelConfiguration"]["name"]
    condition = {
        "type": "Dangling",
        "status": "False",
        "lastTransitionTime": format_time(now),
        "reason": "Found",
        "message": "This FlowSchema references the PriorityLevelConfiguration object named "
        f'"{level}" and it exists',
    }
    status = {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {"name": obj["metadata"]["name"]},
        "status": {"conditions": [condition]},
    }
    return server_side_apply(
        FLOW_SCHEMAS, obj, status, _CONSUMER, format_time(now), subresource="status"
    )


def _lends(percent: int, *, shares: int) -> Obj:
    return {"nominalConcurrencyShares": shares, "lendablePercent": percent}


def _level(name: str, spec: Obj) -> Obj:
    return {"metadata": {"name": name, "annotations": _AUTOMATIC}, "spec": spec}


def _group(*names: str) -> list[Obj]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Obj]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _accounts(*names: str) -> list[Obj]:
    return [
        {"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}}
        for name in names
    ]


def _on(groups: str, resources: list[str], verbs: list[str], *, cluster: bool = True) -> Obj:
    rule: Obj = {"verbs": verbs, "apiGroups": [groups], "resources": resources}
    if cluster:
        rule["clusterScope"] = True
    return {**rule, "namespaces": ["*"]}


_ALL_RESOURCES = _on("*", ["*"], ["*"])
_ALL_PATHS = {"verbs": ["*"], "nonResourceURLs": ["*"]}
_EVERYBODY = _group("system:unauthenticated", "system:authenticated")
_WRITES_LEASES = ["get", "create", "update"]


def _all(subjects: list[Obj]) -> list[Obj]:
    return [
        {"subjects": subjects, "resourceRules": [_ALL_RESOURCES], "nonResourceRules": [_ALL_PATHS]}
    ]


def _some(subjects: list[Obj], *rules: Obj) -> list[Obj]:
    return [{"subjects": subjects, "resourceRules": list(rules)}]


def _schemas() -> Iterator[tuple[str, str, int, str, list[Any]]]:
    """(name, level, precedence, distinguisher, rules)."""
    probes = {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}
    leases = _on("coordination.k8s.io", ["leases"], _WRITES_LEASES, cluster=False)
    node_leases = _on("coordination.k8s.io", ["leases"], ["*"], cluster=False)
    nodes = _on("", ["nodes", "nodes/status"], ["*"])
    endpoints = _on("", ["endpoints"], ["get", "create", "update"], cluster=False)
    slices = _on("discovery.k8s.io", ["endpointslices"], ["get", "create", "update"], cluster=False)
    manager, scheduler = "system:kube-controller-manager", "system:kube-scheduler"
    endpoint_writers = _accounts("endpoint-controller", "endpointslicemirroring-controller")
    yield "exempt", "exempt", 1, "", _all(_group("system:masters"))
    yield (
        "probes", "exempt", 2, "", [{"subjects": _EVERYBODY, "nonResourceRules": [probes]}],
    )  # fmt: skip
    yield (
        "system-leader-election", "leader-election", 100, "ByUser",
        _some(_users(manager, scheduler), leases),
    )  # fmt: skip
    yield (
        "endpoint-controller", "workload-high", 150, "ByUser",
        _some([*_users(manager), *endpoint_writers], endpoints, slices),
    )  # fmt: skip
    yield (
        "workload-leader-election", "leader-election", 200, "ByUser",
        _some(_accounts("*"), leases),
    )  # fmt: skip
    yield (
        "system-node-high", "node-high", 400, "ByUser",
        _some(_group("system:nodes"), nodes, node_leases),
    )  # fmt: skip
    yield "system-nodes", "system", 500, "ByUser", _all(_group("system:nodes"))
    for name, who in (
        ("kube-controller-manager", _users(manager)),
        ("kube-scheduler", _users(scheduler)),
    ):
        yield name, "workload-high", 800, "ByNamespace", _all(who)
    yield (
        "kube-system-service-accounts", "workload-high", 900, "ByNamespace", _all(_accounts("*")),
    )  # fmt: skip
    yield (
        "service-accounts", "workload-low", 9000, "ByUser", _all(_group("system:serviceaccounts")),
    )  # fmt: skip
    yield "global-default", "global-default", 9900, "ByUser", _all(_EVERYBODY)
    yield "catch-all", "catch-all", 10000, "ByUser", _all(_EVERYBODY)
