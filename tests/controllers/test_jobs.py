"""Jobs: completions, failures and their back-off, deadlines, suspension, indexes, counting once."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.kinds import EVENTS, JOBS, PODS
from k8slite.api.meta import Obj, get_condition, name
from k8slite.controllers.jobs.job_indexes import INDEX, format_indexes, parse_indexes
from tests.client.fake_api import FakeApi, Flaky
from tests.controllers.objects import meta_of
from tests.controllers.world import open_cluster

CONTROLLER = "job-controller"
KEY = "n/work"


def job(image: str = "succeeds", **spec: Any) -> Obj:
    labels = {"batch.kubernetes.io/controller-uid": "uid-of-work"}
    pod = {"containers": [{"name": "c", "image": image}], "restartPolicy": "Never"}
    return {
        "metadata": meta_of("work", generation=1),
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            **spec,
        },
    }


def status(api: FakeApi) -> Obj:
    found: Obj = api.read(JOBS, KEY).get("status") or {}
    return found


def has(api: FakeApi, condition_type: str, reason: str = "") -> bool:
    condition = get_condition(api.read(JOBS, KEY), condition_type)
    return (
        condition is not None
        and condition["status"] == "True"
        and (not reason or condition["reason"] == reason)
    )


def created(api: FakeApi) -> int:
    return len([e for e in api.log if e[:2] == ("create", "pods")])


async def test_a_job_runs_to_its_end_and_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job(parallelism=2, completions=5))
        await trio.sleep(30)
        stored = status(cluster.api)
        assert has(cluster.api, "Complete", "CompletionsReached")
        assert stored["succeeded"] == 5
        assert stored["uncountedTerminatedPods"] == {}
        assert "active" not in stored
        assert stored["startTime"] < stored["completionTime"]
        assert created(cluster.api) == 5
        assert not any(p["metadata"].get("finalizers") for p in cluster.api.all(PODS))
        reasons = [e["reason"] for e in cluster.api.all(EVENTS)]
        assert reasons.count("SuccessfulCreate") == 5
        assert reasons[-1] == "Completed"


async def test_failures_are_retried_ever_later_up_to_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job("fails", backoffLimit=3))
        await trio.sleep(15)
        assert status(cluster.api)["failed"] == 2
        await trio.sleep(15)
        assert status(cluster.api)["failed"] == 2
        await trio.sleep(300)
        assert has(cluster.api, "Failed", "BackoffLimitExceeded")
        assert status(cluster.api)["failed"] == 4
        assert created(cluster.api) == 4


async def test_a_deadline_ends_a_job_that_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job("broken", activeDeadlineSeconds=20))
        await trio.sleep(15)
        assert len(cluster.pods()) == 1
        await trio.sleep(15)
        assert has(cluster.api, "Failed", "DeadlineExceeded")
        assert cluster.api.all(PODS) == []


async def test_a_suspended_job_has_no_pods_until_it_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job("broken", suspend=True))
        await trio.sleep(5)
        assert cluster.pods() == []
        assert has(cluster.api, "Suspended")
        cluster.api.change(JOBS, KEY, lambda o: o["spec"].update(suspend=False))
        await trio.sleep(5)
        assert len(cluster.pods()) == 1
        cluster.api.change(JOBS, KEY, lambda o: o["spec"].update(suspend=True))
        await trio.sleep(5)
        assert cluster.pods() == []


async def test_an_indexed_job_runs_each_index(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job(completions=4, parallelism=3, completionMode="Indexed"))
        await trio.sleep(30)
        assert has(cluster.api, "Complete")
        assert status(cluster.api)["completedIndexes"] == "0-3"
        pods = cluster.api.all(PODS)
        assert sorted(p["metadata"]["annotations"][INDEX] for p in pods) == ["0", "1", "2", "3"]
        assert all(name(p).startswith("work-") for p in pods)


async def test_a_finished_job_goes_after_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, "ttl-after-finished-controller") as cluster:
        cluster.api.add(JOBS, job(ttlSecondsAfterFinished=30))
        await trio.sleep(20)
        assert has(cluster.api, "Complete")
        await trio.sleep(30)
        assert cluster.api.all(JOBS) == []


async def test_pods_of_a_job_that_is_gone_are_not_held(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(JOBS, job("broken"))
        await trio.sleep(5)
        [running] = cluster.pods()
        assert running["metadata"]["finalizers"]
        cluster.api.remove(JOBS, KEY)
        await trio.sleep(5)
        assert not cluster.pods()[0]["metadata"].get("finalizers")


def is_over(api: FakeApi) -> bool:
    return KEY in api.objects[JOBS] and has(api, "Complete")


@pytest.mark.parametrize("seed", range(6))
async def test_each_success_counts_once_whatever_fails_and_whoever_deletes(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    async with open_cluster(CONTROLLER, seed=seed, job_backoff=1.0) as cluster:
        api = cluster.api
        flaky = Flaky(rng.randrange(3, 8))
        api.fault, api.lose_answers = flaky.before, flaky.after
        api.add(JOBS, job(completions=12, parallelism=3, backoffLimit=100))
        with trio.fail_after(2000):
            while not is_over(api):
                await trio.sleep(rng.random())
                if rng.random() < 0.3:
                    api.break_watches(compact=rng.random() < 0.5)
                if rng.random() < 0.3 and api.all(PODS):
                    victim = rng.choice(api.all(PODS))
                    change = partial(_mark_deleted, api)
                    api.change(PODS, f"n/{name(victim)}", change)
        succeeded = {
            obj["metadata"]["uid"]
            for _, kind, _, obj in api.journal
            if kind is PODS and obj.get("status", {}).get("phase") == "Succeeded"
        }
        assert 12 <= status(api)["succeeded"] <= len(succeeded)
        assert status(api)["uncountedTerminatedPods"] == {}


def _mark_deleted(api: FakeApi, pod: Obj) -> None:
    pod["metadata"].setdefault("deletionTimestamp", api.now())


@given(st.sets(st.integers(0, 30)))
def test_indexes_as_text(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == sorted(indexes)


def test_indexes_are_written_as_kubernetes_does() -> None:
    assert format_indexes([1, 3, 4, 5, 7]) == "1,3-5,7"
    assert format_indexes([1, 2]) == "1,2"
