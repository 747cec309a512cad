"""All controllers, by kube-controller-manager's names, and how a selection of them is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from k8slite.controllers.access.bootstrap_tokens import run_token_cleaner
from k8slite.controllers.access.certificates import (
    run_approving_controller,
    run_cleaning_controller,
    run_signing_controller,
)
from k8slite.controllers.access.clusterrole_aggregation import (
    run_clusterrole_aggregation_controller,
)
from k8slite.controllers.access.legacy_tokens import run_legacy_token_cleaner
from k8slite.controllers.access.policy_status import run_policy_status_controller
from k8slite.controllers.access.root_ca import run_root_ca_controller
from k8slite.controllers.access.serviceaccount import run_serviceaccount_controller
from k8slite.controllers.autoscaling.autoscale import run_autoscale_controller
from k8slite.controllers.context import Controller
from k8slite.controllers.jobs.cronjob import run_cronjob_controller
from k8slite.controllers.jobs.job import run_job_controller
from k8slite.controllers.jobs.ttl_after_finished import run_ttl_after_finished_controller
from k8slite.controllers.nodes.device_taints import run_device_taint_controller
from k8slite.controllers.nodes.node_lifecycle import run_node_lifecycle_controller
from k8slite.controllers.nodes.pod_gc import run_pod_gc_controller
from k8slite.controllers.nodes.taint_eviction import run_taint_eviction_controller
from k8slite.controllers.objects.garbage_collector import run_garbage_collector
from k8slite.controllers.objects.namespaces import run_namespace_controller
from k8slite.controllers.objects.quota import run_quota_controller
from k8slite.controllers.services.endpoints import run_endpoints_controller
from k8slite.controllers.services.endpointslice import run_endpointslice_controller
from k8slite.controllers.services.endpointslice_mirroring import (
    run_endpointslice_mirroring_controller,
)
from k8slite.controllers.services.service_cidrs import run_service_cidr_controller
from k8slite.controllers.storage.ephemeral_volume import run_ephemeral_volume_controller
from k8slite.controllers.storage.resource_claims import run_resource_claim_controller
from k8slite.controllers.storage.volume_attachments import run_attach_detach_controller
from k8slite.controllers.storage.volume_binder import run_volume_binder
from k8slite.controllers.storage.volume_expander import run_volume_expander
from k8slite.controllers.storage.volume_protection import (
    run_claim_protection,
    run_volume_protection,
)
from k8slite.controllers.storage.volume_provisioner import run_local_provisioner
from k8slite.controllers.workloads.daemonset import run_daemonset_controller
from k8slite.controllers.workloads.deployment import run_deployment_controller
from k8slite.controllers.workloads.disruption import run_disruption_controller
from k8slite.controllers.workloads.replicaset import (
    run_replicaset_controller,
    run_replication_controller,
)
from k8slite.controllers.workloads.statefulset import run_statefulset_controller

__all__ = ["CONTROLLERS", "Entry", "selected"]


class Entry(NamedTuple):
    """`workers`: how many keys it handles at once, as kube-controller-manager by default.
    `default`: whether it is among "*"; others run when they are named."""

    run: Controller
    workers: int = 5
    default: bool = True


CONTROLLERS: Final[dict[str, Entry]] = {
    "serviceaccount-controller": Entry(run_serviceaccount_controller, 1),
    "root-ca-certificate-publisher-controller": Entry(run_root_ca_controller, 1),
    "namespace-controller": Entry(run_namespace_controller, 10),
    "resourcequota-controller": Entry(run_quota_controller),
    "deployment-controller": Entry(run_deployment_controller),
    "replicaset-controller": Entry(run_replicaset_controller),
    "replicationcontroller-controller": Entry(run_replication_controller),
    "statefulset-controller": Entry(run_statefulset_controller),
    "daemonset-controller": Entry(run_daemonset_controller, 2),
    "job-controller": Entry(run_job_controller),
    "cronjob-controller": Entry(run_cronjob_controller),
    "ttl-after-finished-controller": Entry(run_ttl_after_finished_controller),
    "horizontal-pod-autoscaler-controller": Entry(run_autoscale_controller),
    "persistentvolume-binder-controller": Entry(run_volume_binder),
    "persistentvolumeclaim-protection-controller": Entry(run_claim_protection),
    "persistentvolume-protection-controller": Entry(run_volume_protection),
    "ephemeral-volume-controller": Entry(run_ephemeral_volume_controller),
    "local-provisioner-controller": Entry(run_local_provisioner),
    "persistentvolume-attach-detach-controller": Entry(run_attach_detach_controller),
    "persistentvolume-expander-controller": Entry(run_volume_expander),
    "resourceclaim-controller": Entry(run_resource_claim_controller, 10),
    "disruption-controller": Entry(run_disruption_controller, 1),
    "endpoints-controller": Entry(run_endpoints_controller),
    "endpointslice-controller": Entry(run_endpointslice_controller),
    "endpointslice-mirroring-controller": Entry(run_endpointslice_mirroring_controller),
    "clusterrole-aggregation-controller": Entry(run_clusterrole_aggregation_controller, 5),
    "certificatesigningrequest-approving-controller": Entry(run_approving_controller, 1),
    "certificatesigningrequest-signing-controller": Entry(run_signing_controller, 1),
    "certificatesigningrequest-cleaner-controller": Entry(run_cleaning_controller, 1),
    "token-cleaner-controller": Entry(run_token_cleaner, 1, default=False),
    "legacy-serviceaccount-token-cleaner-controller": Entry(run_legacy_token_cleaner, 1),
    "service-cidr-controller": Entry(run_service_cidr_controller),
    "validatingadmissionpolicy-status-controller": Entry(run_policy_status_controller),
    "node-lifecycle-controller": Entry(run_node_lifecycle_controller),
    "device-taint-eviction-controller": Entry(run_device_taint_controller, 8),
    "taint-eviction-controller": Entry(run_taint_eviction_controller, 8),
    "pod-garbage-collector-controller": Entry(run_pod_gc_controller),
    "garbage-collector-controller": Entry(run_garbage_collector, 20),
}
"""In the order in which they start."""

EVERY: Final = "*"


def selected(words: Sequence[str]) -> list[str]:
    """The controllers that a `--controllers` list means (pure): "*" is all that are on by default,
    "foo" enables and "-foo" disables one; nothing at all is "*". Raises ValueError."""
    words = words or (EVERY,)
    unknown = [word for word in words if word.removeprefix("-") not in (EVERY, *CONTROLLERS)]
    if unknown:
        names = ", ".join(word.removeprefix("-") for word in unknown)
        raise ValueError(f"no controller is called {names}; there are {', '.join(CONTROLLERS)}")
    return [
        name
        for name in CONTROLLERS
        if f"-{name}" not in words
        and (name in words or (EVERY in words and CONTROLLERS[name].default))
    ]
