"""What a namespace's objects take of its ResourceQuotas. Pure.

Owns: which resource names an object of a kind counts for, and how much; which objects a quota's
scopes choose; the texts of refusals. The apiserver charges with it, the controller counts anew.
Amounts are quantities as text, so that "1Gi" stays binary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from k8slite.api import meta, quantity
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.qos import BEST_EFFORT, qos_class

__all__ = [
    "Amounts",
    "added",
    "exceeded",
    "grown",
    "missing_requests",
    "plain_kind",
    "pod_total",
    "selects",
    "usage",
]

Amounts = dict[str, str]
COUNT = "count/"
CLASS_MARK = ".storageclass.storage.k8s.io/"
_SERVICES = ("services", "services.loadbalancers", "services.nodeports")
_OBJECTS = ("configmaps", "secrets", "replicationcontrollers", "resourcequotas")
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_DEMANDED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
_TERMINAL = ("Succeeded", "Failed")


def plain_kind(resource: str) -> str:
    """The kind, as "pods" or "deployments.apps", whose objects a resource name counts."""
    if resource.startswith(COUNT):
        return resource.removeprefix(COUNT)
    if resource in _SERVICES:
        return "services"
    if resource in _OBJECTS:
        return resource
    if resource in ("persistentvolumeclaims", "requests.storage") or CLASS_MARK in resource:
        return "persistentvolumeclaims"
    return "pods"


def usage(kind: Kind, obj: Obj) -> Amounts:
    """What one object takes."""
    taken: Amounts = {COUNT + kind.resource: "1"}
    match kind.resource:
        case "pods":
            taken |= _of_pod(obj)
        case "services":
            taken |= _of_service(obj["spec"])
        case "persistentvolumeclaims":
            taken |= _of_claim(obj)
        case resource if resource in _OBJECTS:
            taken[resource] = "1"
    return taken


def added(total: Amounts, more: Mapping[str, str]) -> Amounts:
    """The sum, by name."""
    result = dict(total)
    for name, amount in more.items():
        result[name] = quantity.add(result[name], amount) if name in result else amount
    return result


def grown(after: Mapping[str, str], before: Mapping[str, str]) -> Amounts:
    """By how much each amount is larger than it was; those that are not are left out."""
    grew: Amounts = {}
    for name, amount in after.items():
        more = quantity.subtract(amount, before.get(name, "0"))
        if quantity.parse(more) > 0:
            grew[name] = more
    return grew


def exceeded(hard: Mapping[str, str], used: Mapping[str, str], more: Mapping[str, str]) -> str:
    """What forbids to take `more`, for a quota's refusal; "" if nothing does."""
    over = sorted(
        name
        for name, amount in more.items()
        if quantity.parse(quantity.add(used.get(name, "0"), amount)) > quantity.parse(hard[name])
    )
    if not over:
        return ""
    parts = (("requested", more), ("used", used), ("limited", hard))
    return ", ".join(
        f"{word}: " + ",".join(f"{name}={amounts.get(name, '0')}" for name in over)
        for word, amounts in parts
    )


def missing_requests(pod: Obj, resources: Iterable[str]) -> str:
    """What containers must say because these resources are limited; "" if they say it all."""
    spec = pod["spec"]
    given_for_all = spec.get("resources") or {}
    silent: dict[str, list[str]] = {}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        said = container.get("resources") or {}
        for resource in resources:
            if resource not in _DEMANDED:
                continue
            part, _, what = resource.rpartition(".")
            part = part or "requests"
            if what in (said.get(part) or {}) or what in (given_for_all.get(part) or {}):
                continue
            silent.setdefault(resource, []).append(container["name"])
    told = (f"{resource} for: {','.join(sorted(names))}" for resource, names in silent.items())
    return f"must specify {'; '.join(sorted(told))}" if silent else ""


# --- scopes -------------------------------------------------------------------------------------


def selects(quota: Obj, kind: Kind, obj: Obj) -> bool:
    """Do the quota's scopes choose the object? A quota without scopes chooses all."""
    spec = quota["spec"]
    wanted = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    wanted += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_in_scope(term, kind, obj) for term in wanted)


def _in_scope(term: Obj, kind: Kind, obj: Obj) -> bool:
    scope, operator = term["scopeName"], term.get("operator", "Exists")
    if scope == "VolumeAttributesClass":
        found = kind.resource == "persistentvolumeclaims"
        value = (obj["spec"].get("volumeAttributesClassName") or "") if found else ""
        return found and _compare(operator, value, term)
    if kind.resource != "pods":
        return False
    spec = obj["spec"]
    match scope:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return qos_class(obj) == BEST_EFFORT
        case "NotBestEffort":
            return qos_class(obj) != BEST_EFFORT
        case "PriorityClass":
            return _compare(operator, spec.get("priorityClassName") or "", term)
        case "CrossNamespacePodAffinity":
            return _reaches_out(spec.get("affinity") or {})
    return False


def _compare(operator: str, value: str, term: Obj) -> bool:
    match operator:
        case "In":
            return value in (term.get("values") or ())
        case "NotIn":
            return value not in (term.get("values") or ())
        case "DoesNotExist":
            return not value
    return bool(value)


def _reaches_out(affinity: Obj) -> bool:
    """Does a term between pods name other namespaces?"""
    for side in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(side) or {}
        terms = [*(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())]
        for preferred in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            terms.append(preferred["podAffinityTerm"])
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in terms):
            return True
    return False


# --- kinds --------------------------------------------------------------------------------------


def _of_pod(pod: Obj) -> Amounts:
    """A pod that has ended takes nothing but its place among the objects."""
    if (pod.get("status") or {}).get("phase") in _TERMINAL:
        return {}
    taken: Amounts = {"pods": "1"}
    for part in ("requests", "limits"):
        for resource, amount in pod_total(pod["spec"], part).items():
            if part == "requests":
                taken[f"requests.{resource}"] = amount
                if resource in _COMPUTE or resource.startswith("hugepages-"):
                    taken[resource] = amount
            elif resource in _COMPUTE:
                taken[f"limits.{resource}"] = amount
    return taken


def pod_total(spec: Obj, part: str) -> Amounts:
    """Containers and sidecars together, or the largest init container if it asks for more."""

    def said(container: Obj) -> Amounts:
        return dict((container.get("resources") or {}).get(part) or {})

    total: Amounts = {}
    for container in spec.get("containers") or ():
        total = added(total, said(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        wanted = added(said(container), sidecars)
        if container.get("restartPolicy") == "Always":
            sidecars = wanted
        peak = _at_least(peak, wanted)
    total = _at_least(added(total, sidecars), peak)
    total |= (spec.get("resources") or {}).get(part) or {}
    overhead = spec.get("overhead") or {}
    if part == "limits":  # overhead raises only limits that are set
        overhead = {name: amount for name, amount in overhead.items() if name in total}
    return added(total, overhead)


def _at_least(total: Amounts, least: Amounts) -> Amounts:
    result = dict(total)
    for name, amount in least.items():
        if name not in result or quantity.parse(amount) > quantity.parse(result[name]):
            result[name] = amount
    return result


def _of_service(spec: Obj) -> Amounts:
    type_, ports = spec.get("type", "ClusterIP"), len(spec.get("ports") or ())
    taken: Amounts = {"services": "1"}
    if type_ == "LoadBalancer":
        taken["services.loadbalancers"] = "1"
        if spec.get("allocateLoadBalancerNodePorts") is False:
            ports = sum(bool(port.get("nodePort")) for port in spec.get("ports") or ())
    if type_ in ("NodePort", "LoadBalancer"):
        taken["services.nodeports"] = str(ports)
    return taken


def _of_claim(claim: Obj) -> Amounts:
    spec = claim["spec"]
    taken: Amounts = {"persistentvolumeclaims": "1"}
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    named = meta.annotations(claim).get("volume.beta.kubernetes.io/storage-class", "")
    storage_class = named or spec.get("storageClassName")
    if storage:
        taken["requests.storage"] = storage
    if storage_class:
        taken[f"{storage_class}{CLASS_MARK}persistentvolumeclaims"] = "1"
        if storage:
            taken[f"{storage_class}{CLASS_MARK}requests.storage"] = storage
    return taken
