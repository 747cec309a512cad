"""The autoscaler: how many replicas, how fast, what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.api.custom import custom_kinds
from k8slite.api.kinds import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    PODS,
    Kind,
)
from k8slite.api.meta import Obj, get_condition
from k8slite.api.status import not_found
from k8slite.controllers.autoscaling.autoscale import POD_METRICS, pod_readings, seconds
from k8slite.controllers.autoscaling.autoscale_behavior import Memory, limit
from k8slite.controllers.autoscaling.autoscale_plan import Measured, Target, plan
from k8slite.controllers.autoscaling.autoscale_replicas import (
    MetricsMissing,
    Reading,
    Tolerance,
    average_replicas,
    utilization_replicas,
    value_replicas,
)
from tests.controllers.objects import deployment, meta_of, pod
from tests.controllers.world import open_cluster

NOW = 1_700_001_000.0
OLD = "2023-11-14T21:13:20Z"


def asking(own: str, milli: int = 1000, **more: Any) -> Obj:
    obj = pod(own, since=OLD, **more)
    obj["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{milli}m"}}
    obj["status"]["startTime"] = OLD
    return obj


def used(*milli: int | None) -> dict[str, Reading]:
    """By pod p0, p1...; None: no reading."""
    return {f"p{i}": Reading(m, NOW) for i, m in enumerate(milli) if m is not None}


def pods(count: int, **more: Any) -> list[Obj]:
    return [asking(f"p{i}", **more) for i in range(count)]


@pytest.mark.parametrize(
    ("usage", "target", "expected"),
    [
        ((300, 500, 700), 30, 5),  # kube-controller-manager's own tables
        ((100, 300, 500), 50, 2),
        ((1010, 1030, 1020), 100, 3),
        ((1500, 1500, 1500), 100, 5),
        ((100, 100, 100), 100, 1),
        ((None, 600, 600), 30, 4),  # what is missing counts as nothing when there shall be more
        ((None, 100, 100), 50, 3),  # and as everything when there shall be fewer
    ],
)
def test_utilization(usage: tuple[int | None, ...], target: int, expected: int) -> None:
    found, _, _ = utilization_replicas(
        3, target, pods(3), used(*usage), "cpu", "", Tolerance(), NOW
    )
    assert found == expected


def test_pods_that_are_not_ready_count_as_idle_when_there_shall_be_more() -> None:
    group = [*pods(2), asking("p2", ready=False, phase="Pending")]
    readings = used(600, 900, 900)
    assert utilization_replicas(3, 30, group, readings, "cpu", "", Tolerance(), NOW)[0] == 5
    assert utilization_replicas(3, 30, pods(3), readings, "cpu", "", Tolerance(), NOW)[0] == 8


def test_what_cannot_be_calculated() -> None:
    bare = [pod("p0", since=OLD)]
    with pytest.raises(MetricsMissing, match="missing request for cpu in container c of Pod p0"):
        utilization_replicas(1, 50, bare, used(1), "cpu", "", Tolerance(), NOW)
    with pytest.raises(MetricsMissing, match="did not receive metrics"):
        average_replicas(1, 50, pods(1), {}, "cpu", Tolerance(), NOW)


@pytest.mark.parametrize(
    ("current", "usage", "target", "average", "expected"),
    [
        (3, 8600, 8600, False, 3),
        (3, 20000, 5000, False, 12),
        (3, 8600, 2867, True, 3),
        (4, 8600, 2150, True, 4),
        (2, 9000, 3000, True, 3),
        (0, 9000, 3000, True, 3),
    ],
)
def test_values(current: int, usage: int, target: int, average: bool, expected: int) -> None:
    ready = current
    assert value_replicas(current, usage, target, ready, Tolerance(), average=average) == expected


def spec_of(behavior: Obj | None = None, low: int = 1, high: int = 100) -> Obj:
    spec: Obj = {"minReplicas": low, "maxReplicas": high}
    return spec if behavior is None else {**spec, "behavior": behavior}


@pytest.mark.parametrize(
    ("behavior", "current", "wanted", "expected", "reason"),
    [
        (None, 3, 5, 5, ""),
        (None, 1, 50, 4, "ScaleUpLimit"),
        (None, 10, 50, 20, "ScaleUpLimit"),
        (None, 90, 500, 100, "TooManyReplicas"),
        (None, 3, 0, 1, "TooFewReplicas"),
        ({}, 10, 50, 20, "ScaleUpLimit"),
        ({"scaleUp": {"selectPolicy": "Disabled"}}, 10, 50, 10, "ScaleUpLimit"),
        (
            {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
            10,
            50,
            11,
            "ScaleUpLimit",
        ),
        (
            {"scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}},
            50,
            1,
            45,
            "ScaleDownLimit",
        ),
        (
            {
                "scaleDown": {
                    "selectPolicy": "Min",
                    "policies": [
                        {"type": "Percent", "value": 50, "periodSeconds": 60},
                        {"type": "Pods", "value": 2, "periodSeconds": 60},
                    ],
                }
            },
            50,
            1,
            48,
            "ScaleDownLimit",
        ),
    ],
)
def test_how_fast(
    behavior: Obj | None, current: int, wanted: int, expected: int, reason: str
) -> None:
    found = limit(spec_of(behavior), Memory(), current, wanted, NOW, 300.0)
    assert (found.replicas, found.reason) == (expected, reason)


def test_policies_count_what_was_changed_within_their_period() -> None:
    memory = Memory()
    rules = spec_of({"scaleUp": {"policies": [{"type": "Pods", "value": 5, "periodSeconds": 60}]}})
    memory.note_change(NOW - 70, 3)
    memory.note_change(NOW - 30, 4)
    assert limit(rules, memory, 10, 50, NOW, 300.0).replicas == 11


def test_fewer_only_once_all_of_the_window_asked_for_fewer() -> None:
    memory = Memory()
    assert limit(spec_of(), memory, 10, 10, NOW, 300.0).replicas == 10
    found = limit(spec_of(), memory, 10, 3, NOW + 299, 300.0)
    assert (found.replicas, found.stabilized) == (10, "ScaleDownStabilized")
    assert limit(spec_of(), memory, 10, 3, NOW + 301, 300.0).replicas == 3


# --- plans --------------------------------------------------------------------------------------


def autoscaler(*metrics: Obj, **spec: Any) -> Obj:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    return {
        "metadata": meta_of("web", generation=2),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [*metrics] or [{"type": "Resource", "resource": cpu}],
            **spec,
        },
    }


EXTERNAL = {
    "type": "External",
    "external": {
        "metric": {"name": "queue"},
        "target": {"type": "AverageValue", "averageValue": 5},
    },
}


def decide(obj: Obj, current: int, *measured: Measured) -> Any:
    target = Target(current, current, pods(current))
    return plan(obj, target, measured, Memory(), NOW, 300.0)


def reason(decision: Any, condition: str) -> tuple[str, str]:
    found = get_condition({"status": decision.status}, condition)
    assert found is not None
    return found["status"], found["reason"]


def test_more_load_more_replicas() -> None:
    decision = decide(autoscaler(), 2, Measured(pods=used(1000, 1000)))
    assert decision.replicas == 4
    assert decision.notes == [
        (
            "Normal",
            "SuccessfulRescale",
            "New size: 4; reason: cpu resource utilization (percentage of request) above target",
        )
    ]
    current = decision.status["currentMetrics"][0]["resource"]["current"]
    assert current == {"averageUtilization": 100, "averageValue": "1"}
    assert reason(decision, "AbleToScale") == ("True", "SucceededRescale")
    assert reason(decision, "ScalingActive") == ("True", "ValidMetricFound")


def test_the_metric_that_asks_for_the_most_counts() -> None:
    obj = autoscaler(*autoscaler()["spec"]["metrics"], EXTERNAL)
    decision = decide(obj, 2, Measured(pods=used(500, 500)), Measured(milli=40_000))
    assert decision.replicas == 4, "eight are asked for, and doubling is the limit"
    assert reason(decision, "ScalingLimited") == ("True", "ScaleUpLimit")


def test_an_unknown_metric_forbids_fewer_and_not_more() -> None:
    obj = autoscaler(*autoscaler()["spec"]["metrics"], EXTERNAL)
    idle = decide(obj, 4, Measured(pods=used(1, 1, 1, 1)), Measured(error="no answer"))
    assert idle.replicas is None
    assert reason(idle, "ScalingActive") == ("False", "FailedGetExternalMetric")
    busy = decide(obj, 2, Measured(pods=used(1000, 1000)), Measured(error="no answer"))
    assert busy.replicas == 4


@pytest.mark.parametrize(("current", "expected"), [(0, None), (12, 10), (2, None)])
def test_bounds_come_first(current: int, expected: int | None) -> None:
    decision = decide(autoscaler(), current, Measured(pods=used(*[500] * current)))
    assert decision.replicas == expected


def test_pod_metrics_are_read() -> None:
    item = {
        "metadata": {"name": "p"},
        "timestamp": "2023-11-14T22:13:20Z",
        "window": "1m30s",
        "containers": [
            {"name": "a", "usage": {"cpu": "250m"}},
            {"name": "b", "usage": {"cpu": "1500000n", "memory": "1Mi"}},
        ],
    }
    assert pod_readings([item], "cpu", "") == {"p": Reading(252, 1_700_000_000.0, 90.0)}
    assert pod_readings([item], "memory", "") == {}
    assert seconds("15s") == 15.0


async def test_a_deployment_follows_its_load(autojump_clock: trio.testing.MockClock) -> None:
    controllers = ("deployment-controller", "replicaset-controller")
    async with open_cluster(
        *controllers, "horizontal-pod-autoscaler-controller", autoscaler_downscale_window=60.0
    ) as cluster:
        api = cluster.api
        obj = deployment(replicas=2)
        container = obj["spec"]["template"]["spec"]["containers"][0]
        container["resources"] = {"requests": {"cpu": "100m"}}
        api.add(DEPLOYMENTS, obj)
        api.add(HORIZONTAL_POD_AUTOSCALERS, autoscaler())

        def load(milli: int) -> None:
            api.objects[POD_METRICS] = {}
            for each in cluster.pods():
                usage = [{"name": "c", "usage": {"cpu": f"{milli}m"}}]
                meta = {
                    "name": each["metadata"]["name"],
                    "namespace": "n",
                    "labels": {"app": "web"},
                }
                body = {"metadata": meta, "timestamp": api.now(), "containers": usage}
                api.add(POD_METRICS, body)
                api.set_status(PODS, f"n/{meta['name']}", startTime=OLD)

        await trio.sleep(20)
        for _ in range(12):
            load(100)
            await trio.sleep(15)
        assert len(cluster.pods()) == 10
        assert api.read(HORIZONTAL_POD_AUTOSCALERS, "n/web")["status"]["currentReplicas"] == 10
        for _ in range(12):
            load(5)
            await trio.sleep(15)
        assert len(cluster.pods()) == 1


async def test_custom_metrics_and_custom_resources(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The metrics come in an older version, and the target is defined by a definition."""
    metric = {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "10"}}
    obj = autoscaler({"type": "Pods", "pods": metric})
    obj["spec"]["scaleTargetRef"] = {"apiVersion": "x.io/v1", "kind": "Octopus", "name": "web"}
    definition = {
        "metadata": {"name": "octopodes.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"kind": "Octopus", "plural": "octopodes"},
            "versions": [{"name": "v1", "served": True, "storage": True}],
        },
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }
    octopuses = next(custom.kind for custom in custom_kinds(definition))
    values = Kind("custom.metrics.k8s.io", "v1beta1", "MetricValue", "pods/*/hits")
    async with open_cluster("horizontal-pod-autoscaler-controller", pods=False) as cluster:
        api = cluster.api

        def fault(verb: str, kind: Kind, key: str) -> BaseException | None:
            old = kind.group == "custom.metrics.k8s.io" and kind.version == "v1beta2"
            return not_found(kind, "hits") if old else None

        api.fault = fault
        api.add(CUSTOM_RESOURCE_DEFINITIONS, definition)
        selector = {"matchLabels": {"app": "web"}}
        target = {"metadata": meta_of("web"), "spec": {"replicas": 1, "selector": selector}}
        api.add(octopuses, {**target, "status": {"replicas": 1}})
        api.add(PODS, asking("p0"))
        about = {"describedObject": {"kind": "Pod", "name": "p0"}, "value": "30"}
        api.add(values, {"metadata": meta_of("p0", labels={"app": "web"}), **about})
        api.add(HORIZONTAL_POD_AUTOSCALERS, obj)
        await trio.sleep(20)
        assert api.read(octopuses, "n/web")["spec"]["replicas"] == 3
