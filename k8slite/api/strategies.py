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
    """Before validation of a new object: status is the server's, generation begins at 1.

    The server has set name, namespace, uid and creationTimestamp already.
    """
    metadata = obj["metadata"]
    _one_owner_each(metadata)
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
    _one_owner_each(new["metadata"])
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


def _one_owner_each(metadata: Obj) -> None:
    owners = metadata.get("ownerReferences")
    if owners and len(owners) > 1:
        metadata["ownerReferences"] = list({o.get("uid"): o for o in reversed(owners)}.values())[
            ::-1
        ]


def _create_service(o: Obj) -> None:
    spec = o["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    _drop_by_type(spec)


_ADDRESSED_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


def _drop_by_type(spec: Obj) -> None:
    """What the type of a service has no use for is dropped where the server had put it."""
    if spec.get("type") == "ExternalName":
        for field in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            spec.pop(field, None)


def _update_service(new: Obj, old: Obj) -> None:
    """Addresses and node ports that the client left out stay as they were given out."""
    spec, was = new["spec"], old.get("spec") or {}
    type_, before = spec.get("type"), was.get("type")
    if type_ != "ExternalName" and before != "ExternalName":
        if not spec.get("clusterIP") and not spec.get("clusterIPs"):
            for field in ("clusterIP", "clusterIPs"):
                if field in was:
                    spec[field] = copy(was[field])
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if field in was:
                spec.setdefault(field, copy(was[field]))
    if type_ != "ExternalName" and spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    kept_name = spec.get("externalName") == was.get("externalName")
    if before == "ExternalName" and type_ != before and kept_name:
        spec.pop("externalName", None)
    if type_ in _WITH_NODE_PORTS and before in _WITH_NODE_PORTS:
        given = {
            (p.get("protocol"), p.get("port")): p.get("nodePort") for p in was.get("ports") or ()
        }
        for port in spec.get("ports") or ():
            node_port = given.get((port.get("protocol"), port.get("port")))
            if node_port and not port.get("nodePort"):
                port["nodePort"] = node_port
    _forget_by_type(spec, was)
    _drop_by_type(spec)


_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


def _forget_by_type(spec: Obj, was: Obj) -> None:
    """A change of type lets go of what only the old type needed, unless the client changed it
    too.
    """
    type_ = spec.get("type")
    if type_ == was.get("type"):
        return
    if type_ == "ExternalName":
        for field in _ADDRESSED_FIELDS:
            if spec.get(field) == was.get(field):
                spec.pop(field, None)
    if type_ not in _WITH_NODE_PORTS:
        given = [p.get("nodePort") for p in was.get("ports") or ()]
        if [p.get("nodePort") for p in spec.get("ports") or ()] == given:
            for port in spec.get("ports") or ():
                port.pop("nodePort", None)
        if spec.get("externalTrafficPolicy") == was.get("externalTrafficPolicy"):
            spec.pop("externalTrafficPolicy", None)
    if type_ != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"):
            if spec.get(field) == was.get(field):
                spec.pop(field, None)


def _create_job(o: Obj) -> None:
    """Without manualSelector a job selects its pods by its own uid."""
    spec = o["spec"]
    if spec.get("manualSelector"):
        return
    name, uid = o["metadata"].get("name", ""), o["metadata"].get("uid", "")
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels["controller-uid"] = labels["batch.kubernetes.io/controller-uid"] = uid
    labels["job-name"] = labels["batch.kubernetes.io/job-name"] = name
    selector = spec.setdefault("selector", {})
    selector.setdefault("matchLabels", {})["batch.kubernetes.io/controller-uid"] = uid
    if not o["metadata"].get("labels"):
        o["metadata"]["labels"] = dict(labels)


def _update_daemon_set(new: Obj, old: Obj) -> None:
    """The template's own generation lives in an annotation: extensions/v1beta1 had a field for
    it.
    """
    key = "deprecated.daemonset.template.generation"
    count = int((old["metadata"].get("annotations") or {}).get(key, "0"))
    if new["spec"].get("template") != old["spec"].get("template"):
        count += 1
    new["metadata"].setdefault("annotations", {})[key] = str(count)


def _create_definition(o: Obj) -> None:
    stored = [v.get("name") for v in o["spec"].get("versions") or () if v.get("storage")]
    o["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored or None,
    }


def _update_definition(new: Obj, _old: Obj) -> None:
    stored = [v.get("name") for v in new["spec"].get("versions") or () if v.get("storage")]
    status = new.setdefault("status", {})
    known = status.get("storedVersions") or []
    status["storedVersions"] = known + [v for v in stored if v not in known]


def _create_node(o: Obj) -> None:
    _clean_node(o)
    taints = o["spec"].setdefault("taints", [])
    if not any(t.get("key") == "node.kubernetes.io/not-ready" for t in taints):
        taints.append({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"})


def _clean_node(o: Obj) -> None:
    spec = o["spec"]
    spec.pop("configSource", None)
    if spec.get("podCIDRs"):
        spec["podCIDR"] = spec["podCIDRs"][0]
    elif spec.get("podCIDR"):
        spec["podCIDRs"] = [spec["podCIDR"]]


def _update_node(new: Obj, _old: Obj) -> None:
    _clean_node(new)


def _create_claim(o: Obj) -> None:
    _data_source(o["spec"])
    _protect(o, "kubernetes.io/pvc-protection")


def _create_volume(o: Obj) -> None:
    _protect(o, "kubernetes.io/pv-protection")


def _protect(o: Obj, finalizer: str) -> None:
    """Storage in use must not vanish: a controller takes the finalizer away when nobody uses it."""
    finalizers = o["metadata"].setdefault("finalizers", [])
    if finalizer not in finalizers:
        finalizers.append(finalizer)


def _data_source(spec: Obj) -> None:
    """dataSource may be a claim or a snapshot only; it and dataSourceRef are kept the same."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if reference is not None and reference.get("namespace"):
        spec.pop("dataSourceRef")
        reference = None
    if source is not None and reference is None and not _may_be_source(source):
        spec.pop("dataSource")
        source = None
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None:
        spec["dataSource"] = dict(reference)


def _may_be_source(source: Obj) -> bool:
    group, kind = source.get("apiGroup") or "", source.get("kind")
    return (group, kind) in (
        ("", "PersistentVolumeClaim"),
        ("snapshot.storage.k8s.io", "VolumeSnapshot"),
    )


def _create_service_account(o: Obj) -> None:
    for reference in o.get("secrets") or ():
        for field in [f for f in reference if f != "name"]:
            del reference[field]


def _update_service_account(new: Obj, _old: Obj) -> None:
    _create_service_account(new)


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
    "services": _create_service,
    "jobs.batch": _create_job,
    "customresourcedefinitions.apiextensions.k8s.io": _create_definition,
    "nodes": _create_node,
    "persistentvolumeclaims": _create_claim,
    "persistentvolumes": _create_volume,
    "serviceaccounts": _create_service_account,
    "pods": _create_pod,
    "namespaces": _create_namespace,
    "secrets": _fold_string_data,
    "certificatesigningrequests.certificates.k8s.io": _create_certificate_request,
}
_UPDATE: dict[str, Callable[[Obj, Obj], None]] = {
    "services": _update_service,
    "daemonsets.apps": _update_daemon_set,
    "customresourcedefinitions.apiextensions.k8s.io": _update_definition,
    "nodes": _update_node,
    "serviceaccounts": _update_service_account,
    "pods": _update_pod,
    "namespaces": _update_namespace,
    "secrets": _fold_string_data_update,
}
