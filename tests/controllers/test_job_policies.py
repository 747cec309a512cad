"""Jobs' rules for failures of pods and indexes, for early success, and for other managers."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.api.kinds import JOBS, PODS
from k8slite.api.meta import Obj, get_condition, name
from k8slite.controllers.jobs.job_indexes import INDEX
from k8slite.controllers.jobs.job_policies import FAILURES, success_rule, verdict
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of
from tests.controllers.test_jobs import CONTROLLER, KEY, has, job, status
from tests.controllers.world import Cluster, open_cluster


def failed(code: int = 1, *conditions: str, container: str = "c") -> Obj:
    ended = {"name": container, "state": {"terminated": {"exitCode": code}}}
    told = [{"type": kind, "status": "True"} for kind in conditions]
    return {
        "metadata": meta_of("p"),
        "spec": {},
        "status": {"phase": "Failed", "containerStatuses": [ended], "conditions": told},
    }


def codes(action: str, operator: str, *values: int, **more: Any) -> Obj:
    return {"action": action, "onExitCodes": {"operator": operator, "values": values, **more}}


DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


@pytest.mark.parametrize(
    ("rules", "pod", "expected"),
    [
        ([codes("FailJob", "In", 42)], failed(42), "FailJob"),
        ([codes("FailJob", "In", 42)], failed(1), None),
        ([codes("Count", "NotIn", 42)], failed(1), "Count"),
        ([codes("FailJob", "In", 42, containerName="other")], failed(42), None),
        ([codes("FailIndex", "In", 42), codes("FailJob", "In", 42)], failed(42), "FailJob"),
        ([DISRUPTED, codes("FailJob", "In", 1)], failed(1, "DisruptionTarget"), "Ignore"),
        ([DISRUPTED], failed(1), None),
    ],
)
def test_the_first_rule_that_matches(rules: list[Obj], pod: Obj, expected: str | None) -> None:
    found = verdict(job(podFailurePolicy={"rules": rules}), pod)
    assert (found and found.action) == expected


def test_why_a_rule_matched() -> None:
    found = verdict(job(podFailurePolicy={"rules": [codes("FailJob", "In", 42)]}), failed(42))
    assert found is not None
    text = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 0"
    assert found.message == text


@pytest.mark.parametrize(
    ("rule", "done", "expected"),
    [
        ({"succeededIndexes": "0,2-3"}, [0, 2, 3], True),
        ({"succeededIndexes": "0,2-3"}, [0, 1, 2], False),
        ({"succeededIndexes": "0,2-3", "succeededCount": 2}, [0, 1, 2], True),
        ({"succeededCount": 2}, [7, 9], True),
        ({"succeededCount": 2}, [7], False),
    ],
)
def test_success_rules(rule: Obj, done: list[int], expected: bool) -> None:
    assert bool(success_rule(job(successPolicy={"rules": [rule]}), done)) is expected


def end(cluster: Cluster, where: str, phase: str, code: int = 0, *conditions: str) -> None:
    ended = {"name": "c", "state": {"terminated": {"exitCode": code}}}
    told = [{"type": kind, "status": "True"} for kind in conditions]
    cluster.api.set_status(PODS, where, phase=phase, containerStatuses=[ended], conditions=told)


def running(api: FakeApi) -> list[Obj]:
    phases = ("Succeeded", "Failed")
    return [p for p in api.all(PODS) if (p.get("status") or {}).get("phase") not in phases]


def indexed(count: int, parallel: int | None = None, **spec: Any) -> Obj:
    mode = {"completionMode": "Indexed", "completions": count}
    return job("broken", parallelism=parallel or count, **mode, **spec)


async def test_a_code_ends_the_job_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        policy = {"rules": [codes("FailJob", "In", 42)]}
        obj = job("broken", parallelism=2, completions=2, podFailurePolicy=policy)
        cluster.api.add(JOBS, obj)
        await trio.sleep(5)
        end(cluster, f"n/{name(cluster.pods()[0])}", "Failed", 42)
        await trio.sleep(10)
        assert has(cluster.api, "Failed", "PodFailurePolicy")
        assert running(cluster.api) == []


async def test_a_disruption_counts_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        policy = {"rules": [DISRUPTED]}
        cluster.api.add(JOBS, job("broken", backoffLimit=0, podFailurePolicy=policy))
        await trio.sleep(5)
        [first] = cluster.pods()
        end(cluster, f"n/{name(first)}", "Failed", 137, "DisruptionTarget")
        await trio.sleep(5)
        [second] = running(cluster.api)
        assert "failed" not in status(cluster.api)
        assert not cluster.api.read(PODS, f"n/{name(first)}")["metadata"].get("finalizers")
        end(cluster, f"n/{name(second)}", "Failed", 1)
        await trio.sleep(5)
        assert has(cluster.api, "Failed", "BackoffLimitExceeded")


async def test_each_index_has_its_own_limit(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER, job_backoff=1.0) as cluster:
        cluster.api.add(JOBS, indexed(3, backoffLimitPerIndex=1))
        await trio.sleep(5)
        for _ in range(4):
            for each in running(cluster.api):
                lost = each["metadata"]["annotations"][INDEX] == "1"
                end(cluster, f"n/{name(each)}", "Failed" if lost else "Succeeded", int(lost))
            await trio.sleep(20)
        stored = status(cluster.api)
        assert has(cluster.api, "Failed", "FailedIndexes")
        assert (stored["completedIndexes"], stored["failedIndexes"]) == ("0,2", "1")
        assert stored["failed"] == 2
        counts = [
            p["metadata"]["annotations"][FAILURES]
            for p in cluster.api.all(PODS)
            if p["metadata"]["annotations"][INDEX] == "1"
        ]
        assert sorted(counts) == ["0", "1"]
        assert not any(p["metadata"].get("finalizers") for p in cluster.api.all(PODS))


async def test_too_many_lost_indexes_end_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, indexed(5, backoffLimitPerIndex=0, maxFailedIndexes=1))
        await trio.sleep(5)
        for each in cluster.pods()[:2]:
            end(cluster, f"n/{name(each)}", "Failed", 1)
        await trio.sleep(10)
        assert has(cluster.api, "Failed", "MaxFailedIndexesExceeded")
        assert running(cluster.api) == []


async def test_the_leader_alone_decides(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        policy = {"rules": [{"succeededIndexes": "0"}]}
        cluster.api.add(JOBS, indexed(3, successPolicy=policy))
        await trio.sleep(5)
        [leader] = [p for p in cluster.pods() if p["metadata"]["annotations"][INDEX] == "0"]
        end(cluster, f"n/{name(leader)}", "Succeeded")
        await trio.sleep(10)
        assert has(cluster.api, "SuccessCriteriaMet", "SuccessPolicy")
        assert has(cluster.api, "Complete", "SuccessPolicy")
        assert running(cluster.api) == []


async def test_a_job_of_another_manager_is_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job(managedBy="example.com/queue"))
        await trio.sleep(10)
        assert cluster.api.all(PODS) == []
        assert get_condition(cluster.api.read(JOBS, KEY), "Complete") is None
