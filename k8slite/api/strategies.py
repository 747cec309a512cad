"""What the server itself does to an object before it is validated and stored.

`prepare_for_create` and `prepare_for_update` are the "strategies" of kube-apiserver: generations,
the quality-of-service class, status reset on create and kept on update. Decoding, defaults and
admission come before; validation comes after. All in place. For an update of a subresource the
server carries over what the subresource may not change before it comes here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from k8slite.api.defaults import apply_defaults
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.qos import qos_class

WITH_GENERATION = frozenset(
    (
        "pods",
        "replicationcontrollers",
        "deployments.apps",
        "replicasets.apps",
        "daemonsets.apps",
        "statefulsets.apps",
        "jobs.batch",
        "cronjobs.batch",
        "podtemplates",
        "poddisruptionbudgets.policy",
        "ingresses.networking.k8s.io",
        "ingressclasses.networking.k8s.io",
        "networkpolicies.networking.k8s.io",
        "endpointslices.discovery.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "priorityclasses.scheduling.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    )
)
"""Kinds that count changes of what is desired in metadata.generation."""

_NOT_DESIRED = frozenset(("metadata", "status", "kind", "apiVersion"))


def prepare_for_create(kind: Kind, obj: Obj) -> None:
    """Before validation of a new object: status is the server's, generation begins at 1."""
    metadata = obj["metadata"]
    if kind.resource in WITH_GENERATION:
        metadata["generation"] = 1
    else:
        metadata.pop("generation", None)
    if "status" in kind.subresources and "status" in obj:
        _reset_status(kind, obj)
    prepare = _CREATE.get(kind.resource)
    if prepare is not None:
        prepare(obj)


def _reset_status(kind: Kind, obj: Obj) -> None:
    if kind.resource == "nodes":
        return
    obj["status"] = {}
    apply_defaults(kind, obj)
    if not obj["status"] and kind.resource in _STATUS_OPTIONAL:
        del obj["status"]


_STATUS_OPTIONAL = frozenset(("resourceclaims.resource.k8s.io", "servicecidrs.networking.k8s.io"))


def prepare_for_update(kind: Kind, new: Obj, old: Obj) -> None:
    """Before validation of an update by the main path: status stays, generation grows with the
    spec.
    """
    if "status" in kind.subresources:
        if "status" in old:
            new["status"] = copy(old["status"])
        else:
            new.pop("status", None)
    prepare = _UPDATE.get(kind.resource)
    if prepare is not None:
        prepare(new, old)
    set_generation(kind, new, old)


def set_generation(kind: Kind, new: Obj, old: Obj) -> None:
    was = old["metadata"].get("generation")
    if kind.resource in WITH_GENERATION and desired_changed(new, old):
        new["metadata"]["generation"] = (was or 0) + 1
    elif was is not None:
        new["metadata"]["generation"] = was
    else:
        new["metadata"].pop("generation", None)


def desired_changed(new: Obj, old: Obj) -> bool:
    """Whether anything but metadata and status differs."""
    keys = (new.keys() | old.keys()) - _NOT_DESIRED
    return any(new.get(k) != old.get(k) for k in keys)


def prepare_for_status_update(kind: Kind, new: Obj, old: Obj) -> None:
    """Before validation of an update of /status: all but status (and the metadata F keeps) is
    old.
    """
    for key in [k for k in new if k not in _NOT_DESIRED]:
        del new[key]
    for key, value in old.items():
        if key not in _NOT_DESIRED:
            new[key] = copy(value)
    was = old["metadata"].get("generation")
    if was is not None:
        new["metadata"]["generation"] = was
    if kind.resource == "pods":
        new["status"] = new.get("status") or {}
        new["status"].setdefault("qosClass", (old.get("status") or {}).get("qosClass"))


def _create_pod(pod: Obj) -> None:
    spec = pod["spec"]
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod)}
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1
    if spec.get("schedulingGates"):
        pod["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": pod["metadata"].get("creationTimestamp"),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def _create_namespace(o: Obj) -> None:
    finalizers = o["spec"].setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")


def _fold_string_data(o: Obj) -> None:
    """stringData is written, never read: each entry goes into data, as base64."""
    text = o.pop("stringData", None)
    if text:
        data = o.setdefault("data", {})
        for key, value in text.items():
            data[key] = base64.b64encode(value.encode()).decode()


def _fold_string_data_update(new: Obj, _old: Obj) -> None:
    _fold_string_data(new)


def _create_certificate_request(o: Obj) -> None:
    o["status"] = {}


def _update_pod(new: Obj, old: Obj) -> None:
    new["status"]["qosClass"] = (old.get("status") or {}).get("qosClass") or qos_class(new)


def _update_namespace(new: Obj, old: Obj) -> None:
    new.setdefault("spec", {})["finalizers"] = (old.get("spec") or {}).get("finalizers") or []


_CREATE: dict[str, Callable[[Obj], None]] = {
    "pods": _create_pod,
    "namespaces": _create_namespace,
    "secrets": _fold_string_data,
    "certificatesigningrequests.certificates.k8s.io": _create_certificate_request,
}
_UPDATE: dict[str, Callable[[Obj, Obj], None]] = {
    "pods": _update_pod,
    "namespaces": _update_namespace,
    "secrets": _fold_string_data_update,
}
