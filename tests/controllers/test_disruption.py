"""Disruption budgets: what is healthy, what must be, and what may go."""

from __future__ import annotations

import pytest
import trio

from k8slite.api.kinds import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS
from k8slite.api.meta import Obj, get_condition, name
from k8slite.controllers.actions import Update
from k8slite.controllers.workloads.disruption import plan
from tests.controllers.objects import deployment, meta_of, pod
from tests.controllers.world import open_cluster

NOW = 1_700_000_000.0


def budget(**spec: object) -> Obj:
    selector = {"matchLabels": {"app": "web"}}
    return {"metadata": meta_of("b", generation=1), "spec": {"selector": selector, **spec}}


@pytest.mark.parametrize(
    ("spec", "ready", "size", "expected"),
    [
        ({"minAvailable": 2}, 3, 3, (3, 2, 3, 1)),
        ({"minAvailable": 3}, 2, 3, (2, 3, 3, 0)),
        ({"minAvailable": "50%"}, 3, 5, (3, 3, 5, 0)),
        ({"maxUnavailable": 1}, 3, 3, (3, 2, 3, 1)),
        ({"maxUnavailable": 1}, 2, 3, (2, 2, 3, 0)),
        ({"maxUnavailable": "100%"}, 3, 3, (3, 0, 3, 3)),
        ({"minAvailable": 0}, 0, 0, (0, 0, 0, 0)),
    ],
)
def test_the_arithmetic(
    spec: Obj, ready: int, size: int, expected: tuple[int, int, int, int]
) -> None:
    pods = [pod(f"p{i}", ready=i < ready) for i in range(min(size, 3))]
    [action], _ = plan(budget(**spec), pods, lambda _: ("u", size), NOW)
    assert isinstance(action, Update)
    status = action.obj["status"]
    fields = ("currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed")
    assert tuple(status[field] for field in fields) == expected


def test_a_noted_eviction_counts_until_its_pod_goes_or_two_minutes_have_passed() -> None:
    noted = budget(minAvailable=1)
    noted["status"] = {"disruptedPods": {"p0": "2023-11-14T22:13:20Z", "gone": "x"}}
    noted["status"]["disruptedPods"]["gone"] = "2023-11-14T22:13:20Z"
    pods = [pod("p0"), pod("p1"), pod("p2")]
    [action], again = plan(noted, pods, lambda _: None, NOW + 20)
    assert isinstance(action, Update)
    assert action.obj["status"]["currentHealthy"] == 2
    assert [*action.obj["status"]["disruptedPods"]] == ["p0"]
    assert again == 100
    [action], _ = plan(noted, pods, lambda _: None, NOW + 121)
    assert isinstance(action, Update)
    assert "disruptedPods" not in action.obj["status"]


async def test_it_follows_the_pods(autojump_clock: trio.testing.MockClock) -> None:
    names = ("deployment-controller", "replicaset-controller", "disruption-controller")
    async with open_cluster(*names) as cluster:
        api = cluster.api
        api.add(POD_DISRUPTION_BUDGETS, budget(maxUnavailable=1))
        api.add(DEPLOYMENTS, deployment(replicas=3))
        await trio.sleep(10)
        stored = api.read(POD_DISRUPTION_BUDGETS, "n/b")
        assert stored["status"]["disruptionsAllowed"] == 1
        condition = get_condition(stored, "DisruptionAllowed")
        assert condition is not None
        assert condition["reason"] == "SufficientPods"
        api.remove(PODS, "n/" + name(cluster.pods()[0]))
        await trio.sleep(0.5)
        assert api.read(POD_DISRUPTION_BUDGETS, "n/b")["status"]["disruptionsAllowed"] == 0
        await trio.sleep(10)
        assert api.read(POD_DISRUPTION_BUDGETS, "n/b")["status"]["disruptionsAllowed"] == 1
