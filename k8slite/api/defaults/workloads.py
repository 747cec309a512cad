"""Defaults of what makes pods: deployments, sets, jobs, controllers, disruption budgets."""

from __future__ import annotations

from k8slite.api.defaults.pods import default_pod_template
from k8slite.api.meta import Obj


def _template(spec: Obj) -> None:
    template = spec.get("template")
    if template is not None:
        default_pod_template(template)


def default_deployment(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    default_pod_template(spec.setdefault("template", {}))
    o.setdefault("status", {})


def default_replica_set(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    default_pod_template(spec.setdefault("template", {}))
    o.setdefault("status", {}).setdefault("replicas", 0)


def default_replication_controller(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _template(spec)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        if not o["metadata"].get("labels"):
            o["metadata"]["labels"] = dict(labels)
    o.setdefault("status", {}).setdefault("replicas", 0)


def default_daemon_set(o: Obj) -> None:
    notes = o["metadata"].setdefault("annotations", {})
    notes.setdefault("deprecated.daemonset.template.generation", "1")
    spec = o.setdefault("spec", {})
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    default_pod_template(spec.setdefault("template", {}))
    status = o.setdefault("status", {})
    for field in (
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
    ):
        status.setdefault(field, 0)


def default_stateful_set(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    if "ordinals" in spec:
        spec["ordinals"].setdefault("start", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    spec.setdefault("revisionHistoryLimit", 10)
    default_pod_template(spec.setdefault("template", {}))
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        default_claim(claim)
    status = o.setdefault("status", {})
    status.setdefault("replicas", 0)
    status.setdefault("availableReplicas", 0)


def default_claim(o: Obj) -> None:
    o.setdefault("metadata", {})
    spec = o.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})
    status = o.setdefault("status", {})
    status.setdefault("phase", "Pending")


def default_job(o: Obj) -> None:
    default_job_spec(o.setdefault("spec", {}))
    o["spec"].setdefault("manualSelector", False)
    labels = ((o["spec"].get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not o["metadata"].get("labels"):
        o["metadata"]["labels"] = dict(labels)
    o.setdefault("status", {})


def default_job_spec(spec: Obj) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    if "backoffLimit" not in spec:
        spec["backoffLimit"] = 2147483647 if "backoffLimitPerIndex" in spec else 6
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    template = spec.setdefault("template", {})
    had_policy = (template.get("spec") or {}).get("restartPolicy")
    default_pod_template(template)
    if not had_policy:
        template["spec"]["restartPolicy"] = "Always"
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    if "podReplacementPolicy" not in spec:
        failed_only = "podFailurePolicy" in spec
        spec["podReplacementPolicy"] = "Failed" if failed_only else "TerminatingOrFailed"


def default_cron_job(o: Obj) -> None:
    spec = o.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    job = template.setdefault("spec", {})
    default_pod_template(job.setdefault("template", {}))
    o.setdefault("status", {})


def default_pod_template_object(o: Obj) -> None:
    default_pod_template(o.setdefault("template", {}))


def default_disruption_budget(o: Obj) -> None:
    o.setdefault("spec", {})
    status = o.setdefault("status", {})
    for field in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(field, 0)
