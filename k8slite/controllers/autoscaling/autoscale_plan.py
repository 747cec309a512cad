"""What an autoscaler (HorizontalPodAutoscaler v2) decides: `plan` is pure.

Of several metrics the one that asks for the most replicas counts; when one of them is unknown,
the others may only ask for more, not for less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import define, field, frozen

from k8slite.api import quantity
from k8slite.api.meta import Obj, copy, format_time, generation, set_condition
from k8slite.controllers.autoscaling.autoscale_behavior import Limited, Memory, limit
from k8slite.controllers.autoscaling.autoscale_replicas import (
    MetricsMissing,
    Reading,
    Tolerance,
    average_replicas,
    ready_count,
    utilization_replicas,
    value_replicas,
)

__all__ = ["Decision", "Measured", "Target", "plan", "tolerance_of"]

_Say = Callable[[str, bool, str, str], None]


@frozen
class Measured:
    """What was read for one metric of the spec: by pod, or one number in thousandths, or why
    there is nothing."""

    pods: Mapping[str, Reading] = field(factory=dict)
    milli: int | None = None
    error: str = ""


@frozen
class Target:
    """The scale: what it says now, what there is, and the pods it selects."""

    spec_replicas: int
    replicas: int
    pods: Sequence[Obj]


@define
class Decision:
    """`replicas` None: leave it alone. `notes`: events as (type, reason, message)."""

    replicas: int | None
    status: Obj
    notes: list[tuple[str, str, str]] = field(factory=list)
    reason: str = ""


def tolerance_of(spec: Obj) -> Tolerance:
    behavior = spec.get("behavior") or {}

    def said(direction: str) -> float:
        text = (behavior.get(direction) or {}).get("tolerance")
        return 0.1 if text is None else float(quantity.parse(str(text)))

    return Tolerance(said("scaleUp"), said("scaleDown"))


def plan(
    autoscaler: Obj,
    target: Target,
    measured: Sequence[Measured],
    memory: Memory,
    now: float,
    downscale_window: float,
) -> Decision:
    """`measured` is in the order of spec.metrics. The memory learns what was recommended."""
    spec = autoscaler["spec"]
    status = copy(autoscaler.get("status") or {})
    status["observedGeneration"] = generation(autoscaler)
    status["currentReplicas"] = target.replicas
    status.setdefault("desiredReplicas", 0)
    decision = Decision(None, status)
    time = format_time(now)

    def say(kind: str, truth: bool, reason: str, message: str) -> None:
        condition = {"type": kind, "status": str(truth), "reason": reason, "message": message}
        set_condition(status, condition, time)

    text = "the HPA controller was able to get the target's current scale"
    say("AbleToScale", True, "SucceededGetScale", text)
    current, low, high = target.spec_replicas, spec.get("minReplicas", 1), spec["maxReplicas"]
    if current == 0 and low != 0:
        status["desiredReplicas"] = 0
        text = "scaling is disabled since the replica count of the target is zero"
        say("ScalingActive", False, "ScalingDisabled", text)
        return decision
    limited: Limited | None = None
    if current > high or current < low:
        wanted = high if current > high else low
        word = "above Spec.MaxReplicas" if current > high else "below Spec.MinReplicas"
        decision.reason = f"Current number of replicas {word}"
    else:
        try:
            asked, metric = _recommend(autoscaler, target, measured, now, decision, say)
        except MetricsMissing as error:
            status["desiredReplicas"] = current
            message = (
                f"failed to compute desired number of replicas based on listed metrics: {error}"
            )
            decision.notes.append(("Warning", "FailedComputeMetricsReplicas", message))
            return decision
        limited = limit(spec, memory, current, asked, now, downscale_window)
        wanted = limited.replicas
        if limited.stabilized:
            than = "higher" if limited.stabilized == "ScaleDownStabilized" else "lower"
            text = f"recent recommendations were {than} than current one, applying the "
            which = "highest" if than == "higher" else "lowest"
            say("AbleToScale", True, limited.stabilized, f"{text}{which} recent recommendation")
        else:
            text = "recommended size matches current size"
            say("AbleToScale", True, "ReadyForNewScale", text)
        say("ScalingLimited", bool(limited.reason), *_limited_words(limited))
        if wanted > current:
            decision.reason = f"{metric} above target"
        elif wanted < current:
            decision.reason = "All metrics below target"
    status["desiredReplicas"] = wanted
    if wanted != current:
        decision.replicas = wanted
        text = f"the HPA controller was able to update the target scale to {wanted}"
        say("AbleToScale", True, "SucceededRescale", text)
        status["lastScaleTime"] = time
        memory.note_change(now, wanted - current)
        message = f"New size: {wanted}; reason: {decision.reason}"
        decision.notes.append(("Normal", "SuccessfulRescale", message))
    return decision


def _limited_words(limited: Limited) -> tuple[str, str]:
    return limited.reason or "DesiredWithinRange", limited.message


def _recommend(
    autoscaler: Obj,
    target: Target,
    measured: Sequence[Measured],
    now: float,
    decision: Decision,
    say: _Say,
) -> tuple[int, str]:
    """The largest count that a metric asks for, and its name. Raises MetricsMissing."""
    spec, tolerance = autoscaler["spec"], tolerance_of(autoscaler["spec"])
    best: tuple[int, str] | None = None
    unknown = ""
    shown: list[Obj] = []
    for metric, reading in zip(spec.get("metrics") or (), measured, strict=True):
        try:
            if reading.error:
                raise MetricsMissing(reading.error)
            replicas, told, current = _one(metric, reading, target, tolerance, now)
        except MetricsMissing as error:
            kind, what = _about(metric)
            reason = f"FailedGet{kind}Metric"
            unknown = unknown or f"failed to get {what}: {error}"
            if unknown.endswith(str(error)):
                message = (
                    "the HPA was unable to compute the replica count: "
                    f"failed to get {what}: {error}"
                )
                say("ScalingActive", False, reason, message)
            decision.notes.append(("Warning", reason, f"failed to get {what}: {error}"))
            continue
        shown.append(current)
        if best is None or replicas > best[0]:
            best = replicas, told
    if best is None or (unknown and best[0] < target.spec_replicas):
        raise MetricsMissing(f"invalid metrics, first error is: {unknown or 'no metrics'}")
    decision.status["currentMetrics"] = shown
    text = f"the HPA was able to successfully calculate a replica count from {best[1]}"
    say("ScalingActive", True, "ValidMetricFound", text)
    return best


def _about(metric: Obj) -> tuple[str, str]:
    match metric["type"]:
        case "Resource":
            return "Resource", f"{metric['resource']['name']} resource metric value"
        case "ContainerResource":
            own = metric["containerResource"]
            return "ContainerResource", f"{own['name']} container metric value"
        case "Pods":
            return "Pods", "pods metric value"
        case "Object":
            return "Object", "object metric value"
    return "External", f"{metric['external']['metric']['name']} external metric value"


def _one(
    metric: Obj, reading: Measured, target: Target, tolerance: Tolerance, now: float
) -> tuple[int, str, Obj]:
    """(replicas, the metric's name, its entry in currentMetrics)."""
    current, kind = target.spec_replicas, metric["type"]
    field_name = kind[0].lower() + kind[1:]
    source = metric[field_name]
    goal = source["target"]
    if kind in ("Resource", "ContainerResource"):
        own, container = source["name"], source.get("container", "")
        entry: Obj = {"name": own, **({"container": container} if container else {})}
        if goal.get("averageUtilization") is not None:
            replicas, percent, average = utilization_replicas(
                current,
                goal["averageUtilization"],
                target.pods,
                reading.pods,
                own,
                container,
                tolerance,
                now,
            )
            value = {"averageUtilization": percent, "averageValue": milli(average)}
            words = f"{own} resource utilization (percentage of request)"
        else:
            replicas, average = _average(goal, target, reading, own, tolerance, now)
            value, words = {"averageValue": milli(average)}, f"{own} resource"
        told = f"{own} container resource" if container else words
        return replicas, told, {"type": kind, field_name: {**entry, "current": value}}
    entry = {k: v for k, v in source.items() if k != "target"}
    own = source["metric"]["name"]
    if kind == "Pods":
        replicas, average = _average(goal, target, reading, "", tolerance, now)
        value, told = {"averageValue": milli(average)}, f"pods metric {own}"
    else:
        assert reading.milli is not None
        per_pod = goal.get("averageValue")
        wanted = quantity.milli_value(str(per_pod if per_pod is not None else goal["value"]))
        replicas = value_replicas(
            current if kind == "External" else target.replicas,
            reading.milli,
            wanted,
            ready_count(target.pods),
            tolerance,
            average=per_pod is not None,
        )
        if per_pod is not None:
            value = {"averageValue": milli(reading.milli // max(1, target.replicas))}
        else:
            value = {"value": milli(reading.milli)}
        told = f"{kind.lower()} metric {own}"
    return replicas, told, {"type": kind, field_name: {**entry, "current": value}}


def _average(
    goal: Obj, target: Target, reading: Measured, resource: str, tolerance: Tolerance, now: float
) -> tuple[int, int]:
    wanted = quantity.milli_value(str(goal["averageValue"]))
    return average_replicas(
        target.spec_replicas, wanted, target.pods, reading.pods, resource, tolerance, now
    )


def milli(number: int) -> str:
    """Thousandths as a quantity."""
    return quantity.canonical(f"{number}m")
