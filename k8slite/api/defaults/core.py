"""Defaults of the core group's other kinds: services, endpoints, secrets, volumes, limits..."""

from __future__ import annotations

from k8slite.api.defaults.pods import default_legacy_volume
from k8slite.api.meta import Obj


def default_service(o: Obj) -> None:
    """Addresses and node ports are given out by the server's allocator, not here."""
    spec = o.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        if not (config.get("clientIP") or {}).get("timeoutSeconds"):
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    type_ = spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if type_ in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if type_ in ("NodePort", "LoadBalancer", "ClusterIP"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if type_ == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    status = o.setdefault("status", {})
    balancer = status.setdefault("loadBalancer", {})
    for ingress in balancer.get("ingress") or ():
        if ingress.get("ip"):
            ingress.setdefault("ipMode", "VIP")


def default_endpoints(o: Obj) -> None:
    for subset in o.get("subsets") or ():
        for port in subset.get("ports") or ():
            port.setdefault("protocol", "TCP")


def default_endpoint_slice(o: Obj) -> None:
    for port in o.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
    for endpoint in o.setdefault("endpoints", None) or ():
        endpoint.setdefault("conditions", {})
    o.setdefault("ports", None)


def default_secret(o: Obj) -> None:
    o.setdefault("type", "Opaque")


def default_namespace(o: Obj) -> None:
    """The label that lets selectors name a namespace; `kubernetes` finalizes its contents."""
    labels = o["metadata"].setdefault("labels", {})
    if o["metadata"].get("name"):
        labels.setdefault("kubernetes.io/metadata.name", o["metadata"]["name"])
    o.setdefault("spec", {})
    o.setdefault("status", {}).setdefault("phase", "Active")


def default_node(o: Obj) -> None:
    o.setdefault("spec", {})
    status = o.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))
    status.setdefault("daemonEndpoints", {"kubeletEndpoint": {"Port": 0}})
    status.setdefault(
        "nodeInfo",
        dict.fromkeys(
            (
                "machineID",
                "systemUUID",
                "bootID",
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeletVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ),
            "",
        ),
    )


def default_persistent_volume(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    o.setdefault("status", {}).setdefault("phase", "Pending")
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    if "hostPath" in spec:
        spec["hostPath"].setdefault("type", "")
    default_legacy_volume(spec)


def default_event(o: Obj) -> None:
    o.setdefault("source", {})
    o.setdefault("firstTimestamp", None)
    o.setdefault("lastTimestamp", None)
    o.setdefault("eventTime", None)
    o.setdefault("reportingComponent", "")
    o.setdefault("reportingInstance", "")


def default_limit_range(o: Obj) -> None:
    for item in (o.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        default = item.get("default") or {}
        for name, amount in (item.get("max") or {}).items():
            default.setdefault(name, amount)
        if default:
            item["default"] = default
        request = item.get("defaultRequest") or {}
        for name, amount in default.items():
            request.setdefault(name, amount)
        for name, amount in (item.get("min") or {}).items():
            request.setdefault(name, amount)
        if request:
            item["defaultRequest"] = request


def default_resource_quota(o: Obj) -> None:
    o.setdefault("spec", {})
    o.setdefault("status", {})
