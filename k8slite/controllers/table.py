"""All controllers, by kube-controller-manager's names, and how a selection of them is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from k8slite.controllers.autoscale import run_autoscale_controller
from k8slite.controllers.bootstrap_tokens import run_token_cleaner
from k8slite.controllers.certificates import (
    run_approving_controller,
    run_cleaning_controller,
    run_signing_controller,
)
from k8slite.controllers.clusterrole_aggregation import run_clusterrole_aggregation_controller
from k8slite.controllers.context import Controller
from k8slite.controllers.cronjob import run_cronjob_controller
from k8slite.controllers.daemonset import run_daemonset_controller
from k8slite.controllers.deployment import run_deployment_controller
from k8slite.controllers.disruption import run_disruption_controller
from k8slite.controllers.endpoints import run_endpoints_controller
from k8slite.controllers.endpointslice import run_endpointslice_controller
from k8slite.controllers.endpointslice_mirroring import run_endpointslice_mirroring_controller
from k8slite.controllers.ephemeral_volume import run_ephemeral_volume_controller
from k8slite.controllers.garbage_collector import run_garbage_collector
from k8slite.controllers.job import run_job_controller
from k8slite.controllers.namespaces import run_namespace_controller
from k8slite.controllers.node_lifecycle import run_node_lifecycle_controller
from k8slite.controllers.pod_gc import run_pod_gc_controller
from k8slite.controllers.quota import run_quota_controller
from k8slite.controllers.replicaset import run_replicaset_controller, run_replication_controller
from k8slite.controllers.root_ca import run_root_ca_controller
from k8slite.controllers.serviceaccount import run_serviceaccount_controller
from k8slite.controllers.statefulset import run_statefulset_controller
from k8slite.controllers.taint_eviction import run_taint_eviction_controller
from k8slite.controllers.ttl_after_finished import run_ttl_after_finished_controller
from k8slite.controllers.volume_binder import run_volume_binder
from k8slite.controllers.volume_protection import run_claim_protection, run_volume_protection
from k8slite.controllers.volume_provisioner import run_local_provisioner

__all__ = ["CONTROLLERS", "OFF_BY_DEFAULT", "selected"]

CONTROLLERS: Final[dict[str, Controller]] = {
    "serviceaccount-controller": run_serviceaccount_controller,
    "root-ca-certificate-publisher-controller": run_root_ca_controller,
    "namespace-controller": run_namespace_controller,
    "resourcequota-controller": run_quota_controller,
    "deployment-controller": run_deployment_controller,
    "replicaset-controller": run_replicaset_controller,
    "replicationcontroller-controller": run_replication_controller,
    "statefulset-controller": run_statefulset_controller,
    "daemonset-controller": run_daemonset_controller,
    "job-controller": run_job_controller,
    "cronjob-controller": run_cronjob_controller,
    "ttl-after-finished-controller": run_ttl_after_finished_controller,
    "horizontal-pod-autoscaler-controller": run_autoscale_controller,
    "persistentvolume-binder-controller": run_volume_binder,
    "persistentvolumeclaim-protection-controller": run_claim_protection,
    "persistentvolume-protection-controller": run_volume_protection,
    "ephemeral-volume-controller": run_ephemeral_volume_controller,
    "local-provisioner-controller": run_local_provisioner,
    "disruption-controller": run_disruption_controller,
    "endpoints-controller": run_endpoints_controller,
    "endpointslice-controller": run_endpointslice_controller,
    "endpointslice-mirroring-controller": run_endpointslice_mirroring_controller,
    "clusterrole-aggregation-controller": run_clusterrole_aggregation_controller,
    "certificatesigningrequest-approving-controller": run_approving_controller,
    "certificatesigningrequest-signing-controller": run_signing_controller,
    "certificatesigningrequest-cleaner-controller": run_cleaning_controller,
    "token-cleaner-controller": run_token_cleaner,
    "node-lifecycle-controller": run_node_lifecycle_controller,
    "taint-eviction-controller": run_taint_eviction_controller,
    "pod-garbage-collector-controller": run_pod_gc_controller,
    "garbage-collector-controller": run_garbage_collector,
}
"""In the order in which they start."""

OFF_BY_DEFAULT: Final[tuple[str, ...]] = ("token-cleaner-controller",)
"""Not among "*"; they run when they are named."""
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
        and (name in words or (EVERY in words and name not in OFF_BY_DEFAULT))
    ]
