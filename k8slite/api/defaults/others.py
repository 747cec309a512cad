"""Defaults of the smaller groups: RBAC, networking, storage, autoscaling, admission, extensions."""

from __future__ import annotations

from k8slite.api.meta import Obj

RBAC = "rbac.authorization.k8s.io"


def default_role(o: Obj) -> None:
    o.setdefault("rules", None)


def default_role_binding(o: Obj) -> None:
    o.setdefault("roleRef", {}).setdefault("apiGroup", RBAC)
    for subject in o.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", RBAC)


def default_network_policy(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress"] + (["Egress"] if spec.get("egress") else [])


def default_ingress(o: Obj) -> None:
    o.setdefault("spec", {})
    o.setdefault("status", {}).setdefault("loadBalancer", {})
    for rule in o["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            service = (path.get("backend") or {}).get("service")
            if service is not None:
                service.setdefault("port", {})
    default = o["spec"].get("defaultBackend") or {}
    if "service" in default:
        default["service"].setdefault("port", {})


def default_ingress_class(o: Obj) -> None:
    parameters = (o.get("spec") or {}).get("parameters")
    if parameters is not None:
        parameters.setdefault("scope", "Cluster")


def default_storage_class(o: Obj) -> None:
    o.setdefault("reclaimPolicy", "Delete")
    o.setdefault("volumeBindingMode", "Immediate")


def default_csi_driver(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("attachRequired", True)
    spec.setdefault("podInfoOnMount", False)
    spec.setdefault("storageCapacity", False)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    spec.setdefault("requiresRepublish", False)
    spec.setdefault("seLinuxMount", False)
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def default_volume_attachment(o: Obj) -> None:
    o.setdefault("status", {}).setdefault("attached", False)


CPU_UTILIZATION = 80
"""In percent of what is requested: what an autoscaler without metrics aims at."""


def default_autoscaler_v1(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    spec.setdefault("targetCPUUtilizationPercentage", CPU_UTILIZATION)
    status = o.setdefault("status", {})
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)


_UP_POLICIES = (
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
)
_DOWN_POLICIES = ({"type": "Percent", "value": 100, "periodSeconds": 15},)


def default_autoscaler_v2(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": CPU_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        up, down = behavior.get("scaleUp"), behavior.get("scaleDown")
        if up is not None or down is not None:
            up = behavior.setdefault("scaleUp", {})
            up.setdefault("stabilizationWindowSeconds", 0)
            up.setdefault("selectPolicy", "Max")
            up.setdefault("policies", [dict(p) for p in _UP_POLICIES])
            down = behavior.setdefault("scaleDown", {})
            down.setdefault("selectPolicy", "Max")
            down.setdefault("policies", [dict(p) for p in _DOWN_POLICIES])
    status = o.setdefault("status", {})
    status.setdefault("desiredReplicas", 0)
    status.setdefault("currentMetrics", None)


def default_priority_class(o: Obj) -> None:
    o.setdefault("value", 0)
    o.setdefault("preemptionPolicy", "PreemptLowerPriority")


def default_webhooks(o: Obj) -> None:
    mutating = o["kind"] == "MutatingWebhookConfiguration"
    for hook in o.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        if mutating:
            hook.setdefault("reinvocationPolicy", "Never")
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)


def default_admission_policy(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    constraints = spec.get("matchConstraints")
    if constraints is not None:
        _default_match_resources(constraints)
    if o["kind"] == "ValidatingAdmissionPolicy":
        o.setdefault("status", {})


def _default_match_resources(match: Obj) -> None:
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for field in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(field) or ():
            rule.setdefault("scope", "*")


def default_admission_policy_binding(o: Obj) -> None:
    match = (o.get("spec") or {}).get("matchResources")
    if match is not None:
        _default_match_resources(match)


def default_custom_resource_definition(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def default_api_service(o: Obj) -> None:
    service = o.setdefault("spec", {}).get("service")
    if service is not None:
        service.setdefault("port", 443)
    o.setdefault("status", {})


def default_flow_schema(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("matchingPrecedence", 1000)
    o.setdefault("status", {})


def default_priority_level(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    o.setdefault("status", {})
    limited = spec.get("limited")
    if limited is not None:
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            queuing.setdefault("handSize", 8)
            queuing.setdefault("queues", 64)
            queuing.setdefault("queueLengthLimit", 50)
    exempt = spec.get("exempt")
    if exempt is not None:
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)


def default_certificate_request(o: Obj) -> None:
    o.setdefault("status", {})
    if not o.setdefault("spec", {}).get("usages"):
        o["spec"]["usages"] = ["digital signature", "key encipherment"]


def default_lease(o: Obj) -> None:
    o.setdefault("spec", {})
