"""What kube-apiserver fills in where a client said nothing. One table; a kind without an entry has
no defaults. Filled in place, after `normalise` and before admission and validation.
"""

from __future__ import annotations

from collections.abc import Callable

from k8slite.api.defaults import core, others, pods, workloads
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj

DEFAULTS: dict[str, Callable[[Obj], None]] = {
    "pods": pods.default_pod,
    "services": core.default_service,
    "endpoints": core.default_endpoints,
    "secrets": core.default_secret,
    "namespaces": core.default_namespace,
    "nodes": core.default_node,
    "events": core.default_event,
    "limitranges": core.default_limit_range,
    "resourcequotas": core.default_resource_quota,
    "persistentvolumes": core.default_persistent_volume,
    "persistentvolumeclaims": workloads.default_claim,
    "podtemplates": workloads.default_pod_template_object,
    "replicationcontrollers": workloads.default_replication_controller,
    "deployments.apps": workloads.default_deployment,
    "replicasets.apps": workloads.default_replica_set,
    "daemonsets.apps": workloads.default_daemon_set,
    "statefulsets.apps": workloads.default_stateful_set,
    "jobs.batch": workloads.default_job,
    "cronjobs.batch": workloads.default_cron_job,
    "poddisruptionbudgets.policy": workloads.default_disruption_budget,
    "endpointslices.discovery.k8s.io": core.default_endpoint_slice,
    "leases.coordination.k8s.io": others.default_lease,
    "roles.rbac.authorization.k8s.io": others.default_role,
    "clusterroles.rbac.authorization.k8s.io": others.default_role,
    "rolebindings.rbac.authorization.k8s.io": others.default_role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": others.default_role_binding,
    "networkpolicies.networking.k8s.io": others.default_network_policy,
    "ingresses.networking.k8s.io": others.default_ingress,
    "ingressclasses.networking.k8s.io": others.default_ingress_class,
    "storageclasses.storage.k8s.io": others.default_storage_class,
    "csidrivers.storage.k8s.io": others.default_csi_driver,
    "volumeattachments.storage.k8s.io": others.default_volume_attachment,
    "priorityclasses.scheduling.k8s.io": others.default_priority_class,
    "customresourcedefinitions.apiextensions.k8s.io": others.default_custom_resource_definition,
    "apiservices.apiregistration.k8s.io": others.default_api_service,
    "flowschemas.flowcontrol.apiserver.k8s.io": others.default_flow_schema,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": others.default_priority_level,
    "certificatesigningrequests.certificates.k8s.io": others.default_certificate_request,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": others.default_webhooks,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": others.default_webhooks,
    "validatingadmissionpolicies.admissionregistration.k8s.io": others.default_admission_policy,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": others.default_admission_policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": (
        others.default_admission_policy_binding
    ),
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": (
        others.default_admission_policy_binding
    ),
}


def apply_defaults(kind: Kind, obj: Obj) -> None:
    """Fills `obj`, a normalised object of this built-in kind, in place."""
    if kind.resource == "horizontalpodautoscalers.autoscaling":
        if kind.version == "v1":
            others.default_autoscaler_v1(obj)
        else:
            others.default_autoscaler_v2(obj)
        return
    fill = DEFAULTS.get(kind.resource)
    if fill is not None:
        fill(obj)
