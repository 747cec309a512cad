"""Cells of the smaller groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k8slite.api.meta import Obj, get_condition
from k8slite.api.tables.core import NONE, created, selector_text
from k8slite.api.tables.durations import human_duration

_UNSET = "<unset>"


def _binding(o: Obj, now: float) -> list[Any]:
    reference = o.get("roleRef") or {}
    users: list[str] = []
    groups: list[str] = []
    accounts: list[str] = []
    for subject in o.get("subjects") or ():
        match subject.get("kind"):
            case "User":
                users.append(subject["name"])
            case "Group":
                groups.append(subject["name"])
            case "ServiceAccount":
                accounts.append(f"{subject.get('namespace', '')}/{subject['name']}")
    return [
        o["metadata"]["name"],
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        created(o, now),
        ", ".join(users),
        ", ".join(groups),
        ", ".join(accounts),
    ]


def _ingress(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    hosts = [r["host"] for r in spec.get("rules") or () if r.get("host")]
    if len(hosts) > 3:
        hosts = [",".join(hosts[:3]) + f" + {len(hosts) - 3} more..."]
    addresses = ((o.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return [
        o["metadata"]["name"],
        spec.get("ingressClassName") or NONE,
        ",".join(hosts) or "*",
        ",".join(a.get("ip") or a.get("hostname") or "" for a in addresses),
        "80, 443" if spec.get("tls") else "80",
        created(o, now),
    ]


def _ingress_class(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    parameters = spec.get("parameters")
    shown = NONE
    if parameters:
        shown = parameters.get("kind", "")
        if parameters.get("apiGroup"):
            shown += f".{parameters['apiGroup']}"
        shown += f"/{parameters.get('name', '')}"
    return [o["metadata"]["name"], spec.get("controller", ""), shown, created(o, now)]


def _network_policy(o: Obj, now: float) -> list[Any]:
    selector = (o.get("spec") or {}).get("podSelector")
    return [o["metadata"]["name"], selector_text(selector), created(o, now)]


def _storage_class(o: Obj, now: float) -> list[Any]:
    notes = o["metadata"].get("annotations") or {}
    name = o["metadata"]["name"]
    if notes.get("storageclass.kubernetes.io/is-default-class") == "true":
        name += " (default)"
    return [
        name,
        o.get("provisioner", ""),
        o.get("reclaimPolicy", "Delete"),
        o.get("volumeBindingMode", _UNSET),
        "true" if o.get("allowVolumeExpansion") else "false",
        created(o, now),
    ]


def _csi_driver(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    tokens = [t.get("audience", "") for t in spec.get("tokenRequests") or ()]
    return [
        o["metadata"]["name"],
        spec.get("attachRequired", True),
        spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False),
        ",".join(tokens) or _UNSET,
        spec.get("requiresRepublish", False),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        created(o, now),
    ]


def _csi_node(o: Obj, now: float) -> list[Any]:
    drivers = (o.get("spec") or {}).get("drivers") or ()
    return [o["metadata"]["name"], len(drivers), created(o, now)]


def _volume_attachment(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    return [
        o["metadata"]["name"],
        spec.get("attacher", ""),
        (spec.get("source") or {}).get("persistentVolumeName") or "",
        spec.get("nodeName", ""),
        (o.get("status") or {}).get("attached", False),
        created(o, now),
    ]


def _attributes_class(o: Obj, now: float) -> list[Any]:
    return [o["metadata"]["name"], o.get("driverName", ""), created(o, now)]


def _priority_class(o: Obj, now: float) -> list[Any]:
    return [
        o["metadata"]["name"],
        o.get("value", 0),
        o.get("globalDefault", False),
        created(o, now),
        o.get("preemptionPolicy", ""),
    ]


def _runtime_class(o: Obj, now: float) -> list[Any]:
    return [o["metadata"]["name"], o.get("handler", ""), created(o, now)]


def _webhooks(o: Obj, now: float) -> list[Any]:
    return [o["metadata"]["name"], len(o.get("webhooks") or ()), created(o, now)]


def _admission_policy(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    parameters = spec.get("paramKind")
    shown = f"{parameters['apiVersion']}/{parameters['kind']}" if parameters else _UNSET
    rules = spec.get("validations") or spec.get("mutations") or ()
    return [o["metadata"]["name"], len(rules), shown, created(o, now)]


def _admission_binding(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    reference = spec.get("paramRef") or {}
    shown = _UNSET
    if reference.get("name"):
        space = reference.get("namespace")
        shown = f"{space}/{reference['name']}" if space else reference["name"]
    elif reference.get("selector"):
        shown = selector_text(reference["selector"])
    return [o["metadata"]["name"], spec.get("policyName", ""), shown, created(o, now)]


def _api_service(o: Obj, now: float) -> list[Any]:
    service = (o.get("spec") or {}).get("service")
    where = f"{service.get('namespace')}/{service.get('name')}" if service else "Local"
    condition = get_condition(o, "Available") or {}
    available = condition.get("status", "")
    if available == "False" and condition.get("reason"):
        available = f"False ({condition['reason']})"
    return [o["metadata"]["name"], where, available, created(o, now)]


def _certificate_request(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    seconds = spec.get("expirationSeconds")
    types = {c.get("type") for c in status.get("conditions") or ()}
    state = [t for t in ("Approved", "Denied") if t in types] or ["Pending"]
    if "Failed" in types:
        state.append("Failed")
    if status.get("certificate"):
        state.append("Issued")
    return [
        o["metadata"]["name"],
        created(o, now),
        spec.get("signerName") or NONE,
        spec.get("username", ""),
        human_duration(seconds) if seconds is not None else NONE,
        ",".join(state),
    ]


def _flow_schema(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    dangling = (get_condition(o, "Dangling") or {}).get("status", "?")
    return [
        o["metadata"]["name"],
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        (spec.get("distinguisherMethod") or {}).get("type", NONE),
        created(o, now),
        dangling,
    ]


def _priority_level(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    limited = spec.get("limited") or spec.get("exempt") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    return [
        o["metadata"]["name"],
        spec.get("type", ""),
        limited.get("nominalConcurrencyShares", NONE),
        queuing.get("queues", NONE),
        queuing.get("handSize", NONE),
        queuing.get("queueLengthLimit", NONE),
        created(o, now),
    ]


def _ip_address(o: Obj, now: float) -> list[Any]:
    reference = (o.get("spec") or {}).get("parentRef") or {}
    parts = [reference.get("resource", ""), reference.get("namespace"), reference.get("name", "")]
    shown = "/".join(p for p in parts if p)
    if reference.get("group"):
        shown = shown.replace("/", f".{reference['group']}/", 1)
    return [o["metadata"]["name"], shown]


def _service_cidr(o: Obj, now: float) -> list[Any]:
    cidrs = (o.get("spec") or {}).get("cidrs") or ()
    return [o["metadata"]["name"], ",".join(cidrs), created(o, now)]


def _resource_claim(o: Obj, now: float) -> list[Any]:
    status = o.get("status") or {}
    states: list[str] = []
    if o["metadata"].get("deletionTimestamp"):
        states.append("deleted")
    if not status.get("allocation"):
        states.append("pending")
    else:
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    return [o["metadata"]["name"], ",".join(states), created(o, now)]


def _resource_slice(o: Obj, now: float) -> list[Any]:
    spec = o.get("spec") or {}
    pool = (spec.get("pool") or {}).get("name", "")
    node, driver = spec.get("nodeName") or "", spec.get("driver", "")
    return [o["metadata"]["name"], node, driver, pool, created(o, now)]


_ADMISSION = "admissionregistration.k8s.io"
CELLS: dict[str, Callable[[Obj, float], list[Any]]] = {
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "ingresses.networking.k8s.io": _ingress,
    "ingressclasses.networking.k8s.io": _ingress_class,
    "networkpolicies.networking.k8s.io": _network_policy,
    "ipaddresses.networking.k8s.io": _ip_address,
    "servicecidrs.networking.k8s.io": _service_cidr,
    "storageclasses.storage.k8s.io": _storage_class,
    "csidrivers.storage.k8s.io": _csi_driver,
    "csinodes.storage.k8s.io": _csi_node,
    "volumeattachments.storage.k8s.io": _volume_attachment,
    "volumeattributesclasses.storage.k8s.io": _attributes_class,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "runtimeclasses.node.k8s.io": _runtime_class,
    f"validatingwebhookconfigurations.{_ADMISSION}": _webhooks,
    f"mutatingwebhookconfigurations.{_ADMISSION}": _webhooks,
    f"validatingadmissionpolicies.{_ADMISSION}": _admission_policy,
    f"mutatingadmissionpolicies.{_ADMISSION}": _admission_policy,
    f"validatingadmissionpolicybindings.{_ADMISSION}": _admission_binding,
    f"mutatingadmissionpolicybindings.{_ADMISSION}": _admission_binding,
    "apiservices.apiregistration.k8s.io": _api_service,
    "certificatesigningrequests.certificates.k8s.io": _certificate_request,
    "flowschemas.flowcontrol.apiserver.k8s.io": _flow_schema,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _priority_level,
    "resourceclaims.resource.k8s.io": _resource_claim,
    "resourceslices.resource.k8s.io": _resource_slice,
}
