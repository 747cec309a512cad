"""Cells of the core group's kinds, and of events, leases and endpoint slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from k8slite.api.meta import Obj, parse_time
from k8slite.api.selectors import from_object
from k8slite.api.tables.durations import UNKNOWN, age, human_duration

NONE = "<none>"


def created(o: Obj, now: float) -> str:
    return age(o["metadata"].get("creationTimestamp"), now)


def join_labels(labels: dict[str, str] | None) -> str:
    """Labels as "a=1,b=2", sorted; "<none>" where there are none."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def containers_and_images(spec: Obj) -> list[str]:
    containers = spec.get("containers") or []
    return [
        ",".join(c.get("name", "") for c in containers),
        ",".join(c.get("image", "") for c in containers),
    ]


def selector_text(selector: Obj | None) -> str:
    if not selector:
        return NONE
    return str(from_object(selector)) or NONE


def _restartable_init(pod: Obj) -> set[str]:
    init = (pod.get("spec") or {}).get("initContainers") or ()
    return {c["name"] for c in init if c.get("restartPolicy") == "Always"}


def pod_cells(pod: Obj, now: float) -> list[Any]:
    """printPod of kubernetes/pkg/printers/internalversion, statement for statement."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = _restartable_init(pod)
    total = len(spec.get("containers") or ()) + len(sidecars)
    summary = _Summary(status.get("reason") or status.get("phase") or "Unknown")
    for condition in status.get("conditions") or ():
        gated = condition.get("reason") == "SchedulingGated"
        if condition.get("type") == "PodScheduled" and gated:
            summary.reason = "SchedulingGated"
    initializing = _init_containers(pod, sidecars, summary)
    if not initializing or _initialized(status):
        _regular_containers(pod, sidecars, summary)
    reason = summary.reason
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({human_duration(now - summary.last_restart)} ago)"
    ips = status.get("podIPs") or []
    address = (ips[0].get("ip") if ips else status.get("podIP")) or NONE
    return [
        pod["metadata"]["name"],
        f"{summary.ready}/{total}",
        reason,
        restarts,
        created(pod, now),
        address,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _readiness_gates(spec, status),
    ]


class _Summary:
    __slots__ = ("last_restart", "ready", "reason", "restarts")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.ready = 0
        self.restarts = 0
        self.last_restart = 0.0

    def count(self, status: Obj) -> None:
        self.restarts += status.get("restartCount", 0)
        finished = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        if finished:
            self.last_restart = max(self.last_restart, parse_time(finished))


def _initialized(status: Obj) -> bool:
    return any(
        c.get("type") == "Initialized" and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )


def _init_containers(pod: Obj, sidecars: set[str], summary: _Summary) -> bool:
    """Looks for the first init container that is not done; True while there is one."""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    total = len((pod.get("spec") or {}).get("initContainers") or ())
    for i, status in enumerate(statuses):
        summary.count(status)
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and terminated.get("exitCode") == 0:
            continue
        if status.get("name") in sidecars and status.get("started"):
            if status.get("ready"):
                summary.ready += 1
            continue
        if terminated is not None:
            summary.reason = "Init:" + _ended(terminated)
        elif waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            summary.reason = "Init:" + waiting["reason"]
        else:
            summary.reason = f"Init:{i}/{total}"
        return True
    return False


def _ended(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _regular_containers(pod: Obj, sidecars: set[str], summary: _Summary) -> None:
    has_running = False
    summary.restarts, summary.last_restart = 0, 0.0  # those of finished init containers are past
    for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
        if status.get("name") in sidecars:
            summary.count(status)
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    for status in reversed(statuses):
        summary.count(status)
        state = status.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting is not None and waiting.get("reason"):
            summary.reason = waiting["reason"]
        elif terminated is not None:
            summary.reason = _ended(terminated)
        elif status.get("ready") and state.get("running") is not None:
            has_running = True
            summary.ready += 1
    if summary.reason == "Completed" and has_running:
        ready = any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in (pod.get("status") or {}).get("conditions") or ()
        )
        summary.reason = "Running" if ready else "NotReady"


def _readiness_gates(spec: Obj, status: Obj) -> str:
    gates = spec.get("readinessGates") or []
    if not gates:
        return NONE
    true = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    return f"{sum(g.get('conditionType') in true for g in gates)}/{len(gates)}"


def _pod_template(o: Obj, now: float) -> list[Any]:
    template = o.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    return [
        o["metadata"]["name"],
        *containers_and_images(template.get("spec") or {}),
        join_labels(labels),
    ]


def node_cells(o: Obj, now: float) -> list[Any]:
    status = o.get("status") or {}
    ready = [c for c in status.get("conditions") or () if c.get("type") == "Ready"]
    shown = ["Ready" if c.get("status") == "True" else "NotReady" for c in ready] or ["Unknown"]
    if (o.get("spec") or {}).get("unschedulable"):
        shown.append("SchedulingDisabled")
    info = status.get("nodeInfo") or {}
    addresses = status.get("addresses") or []
    return [
        o["metadata"]["name"],
        ",".join(shown),
        _roles(o["metadata"].get("labels") or {}),
        created(o, now),
        info.get("kubeletVersion", ""),
        _address(addresses, "InternalIP"),
        _address(addresses, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _address(addresses: Iterable[Obj], type_: str) -> str:
    return next((a["address"] for a in addresses if a.get("type") == type_), NONE)


def _roles(labels: dict[str, str]) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = {k[len(prefix) :] for k in labels if k.startswith(prefix) and len(k) > len(prefix)}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return ",".join(sorted(roles)) or NONE


def service_cells(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    ips = spec.get("clusterIPs") or []
    return [
        o["metadata"]["name"],
        spec.get("type", ""),
        (ips[0] if ips else spec.get("clusterIP")) or NONE,
        _external_ip(o, spec),
        _service_ports(spec.get("ports") or []) or NONE,
        created(o, now),
        join_labels(spec.get("selector")),
    ]


def _external_ip(o: Obj, spec: Obj) -> str:
    external = spec.get("externalIPs") or []
    match spec.get("type"):
        case "ExternalName":
            return spec.get("externalName") or NONE
        case "LoadBalancer":
            ingress = ((o.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
            found = list(dict.fromkeys(i.get("ip") or i.get("hostname") or "" for i in ingress))
            shown = [*(f for f in found if f), *external]
            return ",".join(shown) if shown else "<pending>"
    return ",".join(external) or NONE


def _service_ports(ports: list[Obj]) -> str:
    return ",".join(
        f"{p['port']}:{p['nodePort']}/{p.get('protocol', 'TCP')}"
        if p.get("nodePort")
        else f"{p['port']}/{p.get('protocol', 'TCP')}"
        for p in ports
    )


def _endpoints(o: Obj, now: float) -> list[Any]:
    return [o["metadata"]["name"], _endpoint_text(o.get("subsets") or []), created(o, now)]


def _endpoint_text(subsets: list[Obj]) -> str:
    found: list[str] = []
    for subset in subsets:
        for address in subset.get("addresses") or ():
            if not subset.get("ports"):
                found.append(address["ip"])
            found.extend(f"{address['ip']}:{p['port']}" for p in subset.get("ports") or ())
    if len(found) > 3:
        return f"{','.join(found[:3])} + {len(found) - 3} more..."
    return ",".join(found) or NONE


def _endpoint_slice(o: Obj, now: float) -> list[Any]:
    ports = o.get("ports") or []
    addresses = [e["addresses"][0] for e in o.get("endpoints") or () if e.get("addresses")]
    shown = [str(p["port"]) if p.get("port") is not None else p.get("name") or "*" for p in ports]
    return [
        o["metadata"]["name"],
        o.get("addressType", ""),
        _first_three(shown) if ports else "<unset>",
        _first_three(addresses) if addresses else "<unset>",
        created(o, now),
    ]


def _first_three(items: list[str]) -> str:
    if len(items) > 3:
        return f"{','.join(items[:3])} + {len(items) - 3} more..."
    return ",".join(items)


def event_cells(o: Obj, now: float) -> list[Any]:
    """Of core events and events.k8s.io alike."""
    regarding = o.get("involvedObject") or o.get("regarding") or {}
    first = o.get("firstTimestamp") or o.get("deprecatedFirstTimestamp") or o.get("eventTime")
    last = o.get("lastTimestamp") or o.get("deprecatedLastTimestamp")
    series = o.get("series") or {}
    count = o.get("count") or o.get("deprecatedCount")
    last_seen = series.get("lastObservedTime") or last or first
    if series:
        count = series.get("count")
    kind = str(regarding.get("kind", "")).lower()
    target = f"{kind}/{regarding.get('name', '')}" if regarding.get("name") else kind
    source = o.get("source") or o.get("deprecatedSource") or {}
    component = source.get("component") or o.get("reportingComponent") or ""
    component = component or o.get("reportingController") or ""
    host = source.get("host") or (o.get("reportingInstance") if not source else "")
    return [
        age(last_seen, now),
        o.get("type", ""),
        o.get("reason", ""),
        target,
        regarding.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        (o.get("message") or o.get("note") or "").strip(),
        age(first, now),
        str(count or 1),
        o["metadata"]["name"],
    ]


def _namespace(o: Obj, now: float) -> list[Any]:
    phase = (o.get("status") or {}).get("phase", "")
    return [o["metadata"]["name"], phase, created(o, now)]


def _config_map(o: Obj, now: float) -> list[Any]:
    size = len(o.get("data") or ()) + len(o.get("binaryData") or ())
    return [o["metadata"]["name"], size, created(o, now)]


def _secret(o: Obj, now: float) -> list[Any]:
    return [o["metadata"]["name"], o.get("type", ""), len(o.get("data") or ()), created(o, now)]


def _service_account(o: Obj, now: float) -> list[Any]:
    return [o["metadata"]["name"], created(o, now)]


def _lease(o: Obj, now: float) -> list[Any]:
    holder = (o.get("spec") or {}).get("holderIdentity") or ""
    return [o["metadata"]["name"], holder, created(o, now)]


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _modes(modes: list[str] | None) -> str:
    return ",".join(short for long, short in _MODES.items() if long in (modes or ()))


def _claim(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    bound = bool(spec.get("volumeName"))
    capacity = (status.get("capacity") or {}).get("storage", "") if bound else ""
    phase = status.get("phase", "")
    return [
        o["metadata"]["name"],
        "Terminating" if o["metadata"].get("deletionTimestamp") else phase,
        spec.get("volumeName", ""),
        capacity,
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        created(o, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _volume(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    reference = spec.get("claimRef")
    claim = f"{reference.get('namespace', '')}/{reference.get('name', '')}" if reference else ""
    terminating = o["metadata"].get("deletionTimestamp")
    return [
        o["metadata"]["name"],
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        "Terminating" if terminating else status.get("phase", ""),
        claim,
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""),
        created(o, now),
        spec.get("volumeMode") or "<unset>",
    ]


def _quota(o: Obj, now: float) -> list[Any]:
    status = o.get("status") or {}
    used = status.get("used") or {}
    hard = status.get("hard") or (o.get("spec") or {}).get("hard") or {}
    request: list[str] = []
    limit: list[str] = []
    for name in sorted(hard):
        row = f"{name}: {used.get(name, '0')}/{hard[name]}"
        (limit if name.startswith("limits") else request).append(row)
    return [o["metadata"]["name"], ", ".join(request), ", ".join(limit), created(o, now)]


def _component_status(o: Obj, now: float) -> list[Any]:
    for condition in o.get("conditions") or ():
        if condition.get("type") == "Healthy":
            status = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            message, error = condition.get("message", ""), condition.get("error", "")
            return [o["metadata"]["name"], status, message, error]
    return [o["metadata"]["name"], "Unknown", "", ""]


CELLS: dict[str, Callable[[Obj, float], list[Any]]] = {
    "pods": pod_cells,
    "podtemplates": _pod_template,
    "nodes": node_cells,
    "services": service_cells,
    "endpoints": _endpoints,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "events": event_cells,
    "events.events.k8s.io": event_cells,
    "namespaces": _namespace,
    "configmaps": _config_map,
    "secrets": _secret,
    "serviceaccounts": _service_account,
    "leases.coordination.k8s.io": _lease,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "resourcequotas": _quota,
    "componentstatuses": _component_status,
}
