"""Whether an object may be stored. One table; a kind without an entry has its metadata checked."""

from __future__ import annotations

from collections.abc import Callable

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.status import FieldError
from k8slite.api.validation import (
    admission,
    core,
    extensions,
    jobs,
    networking,
    others,
    pods,
    rbac,
    scaling,
    services,
    storage,
    workloads,
)
from k8slite.api.validation.objectmeta import (
    validate_kept_meta,
    validate_meta_update,
    validate_object_meta,
)

CREATE: dict[str, Callable[[Obj], list[FieldError]]] = {
    "pods": pods.validate_pod,
    "services": services.validate_service,
    "endpoints": services.validate_endpoints,
    "endpointslices.discovery.k8s.io": services.validate_endpoint_slice,
    "nodes": core.validate_node,
    "namespaces": core.validate_namespace,
    "events": core.validate_event,
    "events.events.k8s.io": core.validate_event,
    "configmaps": core.validate_config_map,
    "secrets": core.validate_secret,
    "leases.coordination.k8s.io": core.validate_lease,
    "persistentvolumeclaims": storage.validate_claim,
    "persistentvolumes": storage.validate_persistent_volume,
    "resourcequotas": core.validate_resource_quota,
    "limitranges": core.validate_limit_range,
    "podtemplates": workloads.validate_pod_template_object,
    "replicationcontrollers": workloads.validate_replication_controller,
    "deployments.apps": workloads.validate_deployment,
    "replicasets.apps": workloads.validate_replica_set,
    "daemonsets.apps": workloads.validate_daemon_set,
    "statefulsets.apps": workloads.validate_stateful_set,
    "controllerrevisions.apps": workloads.validate_controller_revision,
    "jobs.batch": jobs.validate_job,
    "cronjobs.batch": jobs.validate_cron_job,
    "poddisruptionbudgets.policy": scaling.validate_disruption_budget,
    "horizontalpodautoscalers.autoscaling": scaling.validate_autoscaler,
    "roles.rbac.authorization.k8s.io": rbac.validate_role,
    "clusterroles.rbac.authorization.k8s.io": rbac.validate_cluster_role,
    "rolebindings.rbac.authorization.k8s.io": rbac.validate_role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": rbac.validate_cluster_role_binding,
    "networkpolicies.networking.k8s.io": networking.validate_network_policy,
    "ingresses.networking.k8s.io": networking.validate_ingress,
    "ingressclasses.networking.k8s.io": networking.validate_ingress_class,
    "storageclasses.storage.k8s.io": others.validate_storage_class,
    "csidrivers.storage.k8s.io": others.validate_csi_driver,
    "runtimeclasses.node.k8s.io": others.validate_runtime_class,
    "priorityclasses.scheduling.k8s.io": others.validate_priority_class,
    "customresourcedefinitions.apiextensions.k8s.io": extensions.validate_new_definition,
    "apiservices.apiregistration.k8s.io": extensions.validate_api_service,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": admission.validate_webhooks,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": admission.validate_webhooks,
    "validatingadmissionpolicies.admissionregistration.k8s.io": (
        admission.validate_admission_policy
    ),
    "mutatingadmissionpolicies.admissionregistration.k8s.io": admission.validate_admission_policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": (
        admission.validate_admission_binding
    ),
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": (
        admission.validate_admission_binding
    ),
}
UPDATE: dict[str, Callable[[Obj, Obj], list[FieldError]]] = {
    "pods": pods.validate_pod_update,
    "services": services.validate_service_update,
    "endpoints": services.validate_endpoints_update,
    "endpointslices.discovery.k8s.io": services.validate_endpoint_slice_update,
    "nodes": core.validate_node_update,
    "namespaces": core.validate_namespace_update,
    "events": core.validate_event_update,
    "events.events.k8s.io": core.validate_event_update,
    "configmaps": core.validate_config_map_update,
    "secrets": core.validate_secret_update,
    "leases.coordination.k8s.io": core.validate_lease_update,
    "persistentvolumeclaims": storage.validate_claim_update,
    "persistentvolumes": storage.validate_persistent_volume_update,
    "resourcequotas": core.validate_resource_quota_update,
    "limitranges": core.validate_limit_range_update,
    "replicationcontrollers": workloads.validate_replication_controller_update,
    "deployments.apps": workloads.validate_deployment_update,
    "replicasets.apps": workloads.validate_replica_set_update,
    "daemonsets.apps": workloads.validate_daemon_set_update,
    "statefulsets.apps": workloads.validate_stateful_set_update,
    "controllerrevisions.apps": workloads.validate_controller_revision_update,
    "jobs.batch": jobs.validate_job_update,
    "cronjobs.batch": jobs.validate_cron_job_update,
    "poddisruptionbudgets.policy": scaling.validate_disruption_budget_update,
    "horizontalpodautoscalers.autoscaling": scaling.validate_autoscaler_update,
    "roles.rbac.authorization.k8s.io": rbac.validate_role_update,
    "clusterroles.rbac.authorization.k8s.io": rbac.validate_cluster_role_update,
    "rolebindings.rbac.authorization.k8s.io": rbac.validate_role_binding_update,
    "clusterrolebindings.rbac.authorization.k8s.io": rbac.validate_cluster_role_binding_update,
    "ingressclasses.networking.k8s.io": networking.validate_ingress_class_update,
    "storageclasses.storage.k8s.io": others.validate_storage_class_update,
    "runtimeclasses.node.k8s.io": others.validate_runtime_class_update,
    "priorityclasses.scheduling.k8s.io": others.validate_priority_class_update,
    "customresourcedefinitions.apiextensions.k8s.io": extensions.validate_definition_update,
}
"""Kinds without an entry here are validated on update as on creation."""


def validate_create(kind: Kind, obj: Obj) -> list[FieldError]:
    """Errors of a new object, in kube-apiserver's order; empty: it may be stored."""
    errors = validate_object_meta(kind, obj)
    check = CREATE.get(kind.resource)
    if check is not None:
        errors += check(obj)
    return errors


def validate_update(kind: Kind, new: Obj, old: Obj) -> list[FieldError]:
    # twice, as the original does: its callers and its strategies both check the metadata
    errors = validate_kept_meta(kind, new) + 2 * validate_meta_update(new, old)
    check = UPDATE.get(kind.resource)
    if check is not None:
        return errors + check(new, old)
    fallback = CREATE.get(kind.resource)
    return errors + fallback(new) if fallback is not None else errors
