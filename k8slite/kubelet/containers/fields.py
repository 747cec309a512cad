"""The downward API: what `fieldRef` and `resourceFieldRef` give. Pure."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING
from typing import Any

import attrs

from k8slite.api.meta import Obj
from k8slite.api.quantity import parse, value
from k8slite.kubelet.pods import all_containers
from k8slite.kubelet.runtime.interface import ConfigFailure

SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


@attrs.frozen
class NodeFacts:
    """What a pod may learn of its node: addresses, and what a container without limits may use."""

    name: str
    ip: str
    allocatable: dict[str, str] = attrs.field(factory=dict)


def field_value(pod: Obj, path: str, node: NodeFacts, pod_ip: str) -> str:
    """Raises ConfigFailure for a path that is not supported."""
    meta = pod["metadata"]
    simple: dict[str, Any] = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": node.name,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.hostIP": node.ip,
        "status.hostIPs": node.ip,
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
    }
    if path in simple:
        return str(simple[path])
    if path in ("metadata.labels", "metadata.annotations"):
        entries = sorted((meta.get(path.partition(".")[2]) or {}).items())
        return "\n".join(f"{key}={_quote(text)}" for key, text in entries)
    match = SUBSCRIPT.fullmatch(path)
    if match is None:
        raise ConfigFailure(f"unsupported fieldPath: {path}")
    return str((meta.get(match[1]) or {}).get(match[2], ""))


def _quote(text: str) -> str:
    """As Go's strconv.Quote, for what labels and annotations hold."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + escaped.replace("\t", "\\t").replace("\r", "\\r") + '"'


def resource_value(pod: Obj, container_name: str, reference: Obj, node: NodeFacts) -> str:
    """A limit or request in units of the divisor, rounded up; without a limit the node's."""
    name = reference.get("containerName") or container_name
    container = next((c for c in all_containers(pod) if c["name"] == name), None)
    if container is None:
        raise ConfigFailure(f"container {name} not found")
    group, _, resource = reference["resource"].partition(".")
    found = (container.get("resources") or {}).get(group, {}).get(resource)
    if found is None and group == "limits":
        found = node.allocatable.get(resource)
    divisor = reference.get("divisor") or "0"
    if parse(str(divisor)) == 0:
        divisor = "1"
    amount = parse(str(found or "0")) / parse(str(divisor))
    return str(int(amount.to_integral_value(ROUND_CEILING)))


def cpu_shares(milli: int) -> int:
    """The kernel's weight for a request in thousandths of a core."""
    return max(2, min(262144, milli * 1024 // 1000)) if milli else 2


def whole(quantities: Obj, name: str) -> int:
    text = quantities.get(name)
    return 0 if text is None else value(str(text))
