"""Cells of what makes pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from k8slite.api.meta import Obj, controller_of, get_condition, parse_time
from k8slite.api.tables.core import (
    NONE,
    containers_and_images,
    created,
    join_labels,
    selector_text,
)
from k8slite.api.tables.durations import human_duration


def _template_columns(spec: Obj) -> list[str]:
    return containers_and_images((spec.get("template") or {}).get("spec") or {})


def _deployment(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    return [
        o["metadata"]["name"],
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        created(o, now),
        *_template_columns(spec),
        selector_text(spec.get("selector")),
    ]


def _replica_set(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    return [
        o["metadata"]["name"],
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        created(o, now),
        *_template_columns(spec),
        selector_text(spec.get("selector")),
    ]


def _replication_controller(o: Obj, now: float) -> list[Any]:
    cells = _replica_set({**o, "spec": {**(o.get("spec") or {}), "selector": None}}, now)
    cells[-1] = join_labels((o.get("spec") or {}).get("selector"))
    return cells


def _stateful_set(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    return [
        o["metadata"]["name"],
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        created(o, now),
        *_template_columns(spec),
    ]


def _daemon_set(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    node_selector = ((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")
    return [
        o["metadata"]["name"],
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        join_labels(node_selector),
        created(o, now),
        *_template_columns(spec),
        selector_text(spec.get("selector")),
    ]


def _job(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    succeeded = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        completions = f"{succeeded}/{spec['completions']}"
    elif spec.get("parallelism", 0) > 1:
        completions = f"{succeeded}/1 of {spec['parallelism']}"
    else:
        completions = f"{succeeded}/1"
    return [
        o["metadata"]["name"],
        _job_status(o),
        completions,
        _job_duration(status, now),
        created(o, now),
        *_template_columns(spec),
        selector_text(spec.get("selector")),
    ]


def _job_status(o: Obj) -> str:
    def has(type_: str) -> bool:
        condition = get_condition(o, type_)
        return condition is not None and condition.get("status") == "True"

    if has("Complete"):
        return "Complete"
    if has("Failed"):
        return "Failed"
    if o["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if has("Suspended"):
        return "Suspended"
    if has("FailureTarget"):
        return "FailureTarget"
    if has("SuccessCriteriaMet"):
        return "SuccessCriteriaMet"
    return "Running"


def _job_duration(status: Obj, now: float) -> str:
    if not status.get("startTime"):
        return ""
    end = parse_time(status["completionTime"]) if status.get("completionTime") else now
    return human_duration(end - parse_time(status["startTime"]))


def _cron_job(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    last = status.get("lastScheduleTime")
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        o["metadata"]["name"],
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        spec.get("suspend", False),
        len(status.get("active") or ()),
        human_duration(now - parse_time(last)) if last else NONE,
        created(o, now),
        *_template_columns(job),
        selector_text(job.get("selector")),
    ]


def _controller_revision(o: Obj, now: float) -> list[Any]:
    owner = controller_of(o)
    controller = NONE
    if owner is not None:
        group = owner["apiVersion"].rpartition("/")[0]
        kind = owner["kind"].lower()
        controller = f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"
    return [o["metadata"]["name"], controller, str(o.get("revision", 0)), created(o, now)]


def _autoscaler_v1(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    wanted = spec.get("targetCPUUtilizationPercentage")
    current = status.get("currentCPUUtilizationPercentage")
    shown = f"{current}%" if current is not None else "<unknown>"
    targets = f"cpu: {shown}/{wanted}%" if wanted is not None else NONE
    return _autoscaler(o, targets, now)


def _autoscaler_v2(o: Obj, now: float) -> list[Any]:
    metrics = (o.get("spec") or {}).get("metrics") or []
    current = (o.get("status") or {}).get("currentMetrics") or []
    shown = [_metric(m, current[i] if i < len(current) else {}) for i, m in enumerate(metrics)]
    if len(shown) > 2:
        shown = [*shown[:2], f"{len(shown) - 2} more..."]
    return _autoscaler(o, ", ".join(shown) or NONE, now)


def _metric(metric: Obj, current: Obj) -> str:
    type_ = metric.get("type", "")
    field = type_[:1].lower() + type_[1:]
    source, now = metric.get(field) or {}, (current.get(field) or {}).get("current") or {}
    target = source.get("target") or {}
    name = source.get("name", "")
    prefix = f"{name}: " if type_ in ("Resource", "ContainerResource") else ""
    if target.get("averageUtilization") is not None:
        value = now.get("averageUtilization")
        shown = f"{value}%" if value is not None else "<unknown>"
        return f"{prefix}{shown}/{target['averageUtilization']}%"
    if target.get("averageValue") is not None:
        suffix = " (avg)" if type_ in ("Object", "External") else ""
        return f"{prefix}{now.get('averageValue', '<unknown>')}/{target['averageValue']}{suffix}"
    return f"{prefix}{now.get('value', '<unknown>')}/{target.get('value', '<auto>')}"


def _autoscaler(o: Obj, targets: str, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    reference = spec.get("scaleTargetRef") or {}
    minimum = spec.get("minReplicas")
    return [
        o["metadata"]["name"],
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        targets,
        str(minimum) if minimum is not None else "<unset>",
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        created(o, now),
    ]


def _disruption_budget(o: Obj, now: float) -> list[Any]:
    spec, status = o.get("spec") or {}, o.get("status") or {}
    low, high = spec.get("minAvailable"), spec.get("maxUnavailable")
    return [
        o["metadata"]["name"],
        "N/A" if low is None else str(low),
        "N/A" if high is None else str(high),
        status.get("disruptionsAllowed", 0),
        created(o, now),
    ]


CELLS: dict[str, Callable[[Obj, float], list[Any]]] = {
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "replicationcontrollers": _replication_controller,
    "statefulsets.apps": _stateful_set,
    "daemonsets.apps": _daemon_set,
    "controllerrevisions.apps": _controller_revision,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "horizontalpodautoscalers.v1.autoscaling": _autoscaler_v1,
    "horizontalpodautoscalers.v2.autoscaling": _autoscaler_v2,
    "poddisruptionbudgets.policy": _disruption_budget,
}
