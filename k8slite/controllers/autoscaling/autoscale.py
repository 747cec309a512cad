"""HorizontalPodAutoscalers: metrics read from the metrics APIs, the scale written. See
`autoscale_plan` for what is decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api import quantity
from k8slite.api.kinds import HORIZONTAL_POD_AUTOSCALERS, PODS, Kind
from k8slite.api.meta import Obj, format_time, labels, name, namespace, parse_time, set_condition
from k8slite.api.selectors import SelectorError, from_object, parse_labels
from k8slite.api.status import ApiError
from k8slite.client.api import ObjList
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Note, Update
from k8slite.controllers.autoscaling.autoscale_behavior import Memory
from k8slite.controllers.autoscaling.autoscale_plan import Measured, Target, plan
from k8slite.controllers.autoscaling.autoscale_replicas import Reading
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.custom_kinds import CustomKinds
from k8slite.controllers.execute import carry_out
from k8slite.controllers.services.service_pods import namespace_index

__all__ = ["POD_METRICS", "run_autoscale_controller"]

POD_METRICS = Kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")
CUSTOM_VERSIONS = ("v1beta2", "v1beta1")
NOT_FOUND = 404
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


async def run_autoscale_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue(spacing_seconds=context.timings.autoscaler_period)
    recorder = context.recorder("horizontal-pod-autoscaler")
    autoscalers = context.informer(HORIZONTAL_POD_AUTOSCALERS)
    pods = context.informer(PODS, namespace=namespace_index)
    kinds = CustomKinds(context)
    memories: dict[str, Memory] = {}

    async def reconcile(where: str) -> float | None:
        autoscaler = autoscalers.get(where)
        if autoscaler is None:
            memories.pop(where, None)
            return None
        now, again = context.host.now(), context.timings.autoscaler_period
        try:
            kind, scale = await _scale_of(context, kinds, autoscaler)
        except ApiError as error:
            status = dict(autoscaler.get("status") or {})
            status["conditions"] = [*status.get("conditions", ())]
            status.setdefault("desiredReplicas", 0)
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            failed = {"type": "AbleToScale", "status": "False", "reason": "FailedGetScale"}
            set_condition(status, {**failed, "message": message}, format_time(now))
            await carry_out(
                context.api,
                recorder,
                [
                    Note(autoscaler, "Warning", "FailedGetScale", str(error)),
                    *_written(autoscaler, status),
                ],
            )
            return again
        target = _target(scale, pods.by_index("namespace", namespace(autoscaler)))
        measured = [
            await _measure(context, kinds, autoscaler, metric, scale, target)
            for metric in autoscaler["spec"].get("metrics") or ()
        ]
        memory = memories.setdefault(where, Memory())
        window = context.timings.autoscaler_downscale_window
        decision = plan(autoscaler, target, measured, memory, now, window)
        if decision.replicas is not None:
            scaled = {**scale, "spec": {**scale["spec"], "replicas": decision.replicas}}
            await carry_out(context.api, recorder, [Update(kind, scaled, "scale")])
        notes = [Note(autoscaler, *note) for note in decision.notes]
        await carry_out(context.api, recorder, [*notes, *_written(autoscaler, decision.status)])
        return again

    autoscalers.add_handler(enqueue_to(queue))
    await autoscalers.wait_synced()
    await pods.wait_synced()
    await kinds.definitions.wait_synced()
    await context.run_workers("horizontal-pod-autoscaler", queue, reconcile)


def _written(autoscaler: Obj, status: Obj) -> list[Update]:
    if status == autoscaler.get("status"):
        return []
    return [Update(HORIZONTAL_POD_AUTOSCALERS, {**autoscaler, "status": status}, "status")]


async def _scale_of(context: Context, kinds: CustomKinds, autoscaler: Obj) -> tuple[Kind, Obj]:
    """The kind of the target, and its scale. Raises ApiError."""
    reference = autoscaler["spec"]["scaleTargetRef"]
    kind = _kind_of(kinds, reference)
    space = namespace(autoscaler)
    return kind, await context.api.get(kind, reference["name"], space, subresource="scale")


def _kind_of(kinds: CustomKinds, reference: Obj) -> Kind:
    """Raises ApiError for a kind that nobody knows."""
    version, own = reference.get("apiVersion", "v1"), reference["kind"]
    kind = kinds.find(version, own)
    if kind is None:
        group = version.rpartition("/")[0]
        raise ApiError(NOT_FOUND, "NotFound", f'no matches for kind "{own}" in group "{group}"')
    return kind


def _target(scale: Obj, pods: Sequence[Obj]) -> Target:
    status = scale.get("status") or {}
    try:
        selector = parse_labels(status.get("selector") or "")
    except SelectorError:
        selector = from_object(None)
    chosen = (
        [pod for pod in pods if selector.matches(labels(pod))] if status.get("selector") else []
    )
    return Target(scale["spec"].get("replicas", 0), status.get("replicas", 0), chosen)


async def _measure(
    context: Context, kinds: CustomKinds, autoscaler: Obj, metric: Obj, scale: Obj, target: Target
) -> Measured:
    """Read one metric; whatever fails is told in the answer."""
    try:
        return await _read(context, kinds, autoscaler, metric, scale, target)
    except REQUEST_ERRORS as error:
        return Measured(error=str(error))


async def _read(
    context: Context, kinds: CustomKinds, autoscaler: Obj, metric: Obj, scale: Obj, target: Target
) -> Measured:
    space, selector = namespace(autoscaler), (scale.get("status") or {}).get("selector") or ""
    match metric["type"]:
        case "Resource" | "ContainerResource":
            source = metric.get("resource") or metric["containerResource"]
            listed = await context.api.list(POD_METRICS, space, labels=selector)
            container = source.get("container", "")
            return Measured(pods=pod_readings(listed.items, source["name"], container))
        case "Pods":
            source = metric["pods"]["metric"]
            listed = await _custom(context, "pods", "*", source, space, selector)
            return Measured(pods=custom_readings(listed.items))
        case "Object":
            source, about = metric["object"]["metric"], metric["object"]["describedObject"]
            kind = _kind_of(kinds, about)
            listed = await _custom(context, kind.resource, about["name"], source, space)
            if not listed.items:
                return Measured(error="no metrics returned from custom metrics API")
            return Measured(milli=quantity.milli_value(str(listed.items[0]["value"])))
    source = metric["external"]["metric"]
    kind = Kind("external.metrics.k8s.io", "v1beta1", "ExternalMetricValue", source["name"])
    wanted = str(from_object(source["selector"])) if source.get("selector") else ""
    listed = await context.api.list(kind, space, labels=wanted)
    if not listed.items:
        return Measured(error="no metrics returned from external metrics API")
    return Measured(milli=sum(quantity.milli_value(str(i["value"])) for i in listed.items))


async def _custom(
    context: Context, resource: str, own: str, metric: Obj, space: str, labels: str = ""
) -> ObjList:
    """Values of a custom metric, in the newest version that is served. Raises REQUEST_ERRORS."""
    path = f"{resource}/{own}/{metric['name']}"
    for version in CUSTOM_VERSIONS:
        kind = Kind("custom.metrics.k8s.io", version, "MetricValue", path)
        try:
            return await context.api.list(kind, space, labels=labels)
        except ApiError as error:
            if error.code != NOT_FOUND or version == CUSTOM_VERSIONS[-1]:
                raise
    raise AssertionError("the last version returns or raises")


def pod_readings(items: list[Obj], resource: str, container: str) -> dict[str, Reading]:
    """Of PodMetrics (pure): the sum over containers; a pod of which one is unknown is left out."""
    readings = {}
    for item in items:
        parts = [c for c in item.get("containers") or () if container in ("", c["name"])]
        if not parts or any(resource not in (c.get("usage") or {}) for c in parts):
            continue
        total = sum(quantity.milli_value(str(c["usage"][resource])) for c in parts)
        time = parse_time(item["timestamp"]) if item.get("timestamp") else 0.0
        readings[name(item)] = Reading(total, time, seconds(item.get("window", "60s")))
    return readings


def custom_readings(items: list[Obj]) -> dict[str, Reading]:
    """Of MetricValues about pods (pure)."""
    return {
        item["describedObject"]["name"]: Reading(quantity.milli_value(str(item["value"])))
        for item in items
    }


def seconds(text: str) -> float:
    """A duration as "1m30s" in seconds."""
    total, number = 0.0, ""
    for letter in text:
        if letter in _UNITS:
            total += float(number or 0) * _UNITS[letter]
            number = ""
        else:
            number += letter
    return total
