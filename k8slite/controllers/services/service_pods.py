"""Which pods stand behind a Service, and at which ports (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k8slite.api.meta import Obj, key, labels, name, namespace, uid
from k8slite.api.selectors import from_map
from k8slite.client.informer import Informer
from k8slite.controllers.workloads.pods import is_terminal

__all__ = [
    "Port",
    "address_of",
    "family_of",
    "has_selector",
    "is_headless",
    "pod_address",
    "pods_of",
    "ports_of",
    "services_of",
    "target_reference",
]

Port = tuple[str, int, str, str]
"""(name, number, protocol, application protocol or "")"""


def has_selector(service: Obj) -> bool:
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def is_headless(service: Obj) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def publishes_not_ready(service: Obj) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses"))


def pod_address(pod: Obj) -> str:
    address: str = (pod.get("status") or {}).get("podIP") or ""
    return address


def addresses_of(pod: Obj) -> list[str]:
    """All addresses of a pod, the first one of its first family first."""
    status = pod.get("status") or {}
    found = [each["ip"] for each in status.get("podIPs") or () if each.get("ip")]
    return found or ([status["podIP"]] if status.get("podIP") else [])


def address_of(pod: Obj, family: str) -> str:
    """The pod's address of a family (IPv4 or IPv6), "" if it has none."""
    return next((each for each in addresses_of(pod) if family_of(each) == family), "")


def family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def pods_of(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The pods of the service's namespace that it selects and that have an address, by name."""
    selector = from_map(service["spec"].get("selector"))
    chosen = [
        pod
        for pod in pods
        if namespace(pod) == namespace(service)
        and selector.matches(labels(pod))
        and pod_address(pod)
        and not is_terminal(pod)
    ]
    return sorted(chosen, key=name)


def ports_of(service: Obj, pod: Obj) -> tuple[Port, ...]:
    """The service's ports as numbers in the pod; a named port that it lacks is left out."""
    ports: list[Port] = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        number = _target(port, protocol, pod)
        if number is not None:
            ports.append((port.get("name", ""), number, protocol, port.get("appProtocol", "")))
    return tuple(ports)


def target_reference(pod: Obj) -> Obj:
    """The ObjectReference of an endpoint."""
    return {"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)}


def hostname_of(service: Obj, pod: Obj) -> str:
    """The name under which DNS knows the pod inside a headless service; "" for none."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == name(service):
        return str(spec["hostname"])
    return ""


def services_of(services: Informer, pod: Obj) -> list[str]:
    """The keys of the services that select the pod."""
    return [
        key(service)
        for service in services.by_index("namespace", namespace(pod))
        if has_selector(service) and from_map(service["spec"]["selector"]).matches(labels(pod))
    ]


def namespace_index(obj: Obj) -> list[str]:
    """Index: objects by namespace."""
    return [namespace(obj)]


def relevant(pod: Obj) -> tuple[Any, ...]:
    """What endpoints show of a pod; changes of anything else are not worth a look."""
    status = pod.get("status") or {}
    ready = [c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"]
    metadata = pod["metadata"]
    return (
        status.get("podIP"),
        status.get("podIPs"),
        status.get("phase"),
        ready,
        metadata.get("deletionTimestamp"),
        metadata.get("labels"),
        pod["spec"].get("nodeName"),
        metadata.get("uid"),
    )


def _target(port: Mapping[str, Any], protocol: str, pod: Obj) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*spec.get("containers", ()), *sidecars]:
        for exposed in container.get("ports") or ():
            if exposed.get("name") == target and exposed.get("protocol", "TCP") == protocol:
                number: int = exposed["containerPort"]
                return number
    return None
