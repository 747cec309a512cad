"""Deployments and ReplicaSets in a small cluster: rollouts, scaling, pauses, undo, faults."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio

from k8slite.api import meta
from k8slite.api.kinds import DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS
from k8slite.api.meta import Obj, get_condition, is_controlled_by, name
from k8slite.controllers.workloads.revisions import REVISION, find_new, template_hash
from tests.client.fake_api import Flaky
from tests.controllers.objects import TEMPLATE, deployment, pod, replica_set
from tests.controllers.world import Cluster, open_cluster

APPS = ("deployment-controller", "replicaset-controller")
KEY = "n/web"


def set_image(image: str, obj: Obj) -> None:
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image


def images(cluster: Cluster) -> list[str]:
    return [p["spec"]["containers"][0]["image"] for p in cluster.pods()]


def roll_out(cluster: Cluster, image: str) -> None:
    cluster.api.change(DEPLOYMENTS, KEY, partial(set_image, image))


def is_settled(cluster: Cluster, size: int, image: str) -> bool:
    status = cluster.api.read(DEPLOYMENTS, KEY).get("status", {})
    return (
        images(cluster) == [image] * size
        and status.get("availableReplicas", 0) == size
        and status.get("updatedReplicas", 0) == size
        and status.get("replicas", 0) == size
    )


async def wait_settled(cluster: Cluster, size: int, image: str) -> None:
    with trio.fail_after(600):
        while not is_settled(cluster, size, image):
            await trio.sleep(0.5)


def reasons(cluster: Cluster) -> list[str]:
    return [e["message"] for e in cluster.api.all(EVENTS) if e["reason"] == "ScalingReplicaSet"]


async def test_a_deployment_comes_up_and_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment())
        await wait_settled(cluster, 3, "nginx:1")
        stored = cluster.api.read(DEPLOYMENTS, KEY)
        status = stored["status"]
        [rs] = cluster.api.all(REPLICA_SETS)
        digest = rs["metadata"]["labels"]["pod-template-hash"]
        assert name(rs) == f"web-{digest}"
        assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": digest}
        assert is_controlled_by(rs, stored)
        assert meta.annotations(rs) == {
            "deployment.kubernetes.io/revision": "1",
            "deployment.kubernetes.io/desired-replicas": "3",
            "deployment.kubernetes.io/max-replicas": "4",
        }
        assert meta.annotations(stored) == {REVISION: "1"}
        assert {k: v for k, v in status.items() if k != "conditions"} == {
            "observedGeneration": 1,
            "replicas": 3,
            "updatedReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "terminatingReplicas": 0,
        }
        available = get_condition(stored, "Available")
        progressing = get_condition(stored, "Progressing")
        assert available is not None
        assert available["reason"] == "MinimumReplicasAvailable"
        assert progressing is not None
        assert progressing["reason"] == "NewReplicaSetAvailable"
        assert progressing["message"] == f'ReplicaSet "{name(rs)}" has successfully progressed.'
        assert reasons(cluster) == [f"Scaled up replica set {name(rs)} from 0 to 3"]
        created = [e for e in cluster.api.all(EVENTS) if e["reason"] == "SuccessfulCreate"]
        assert len(created) == 3


@pytest.mark.parametrize(
    ("surge", "unavailable", "size"), [("25%", "25%", 4), (1, 0, 3), (0, 1, 3), ("100%", 0, 2)]
)
async def test_a_rolling_update_stays_between_its_fence_posts(
    surge: int | str,
    unavailable: int | str,
    size: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    strategy = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
    }
    most = size + {"25%": 1, "100%": size}.get(str(surge), int(str(surge).strip("%")))
    least = size - {"25%": 1}.get(str(unavailable), int(str(unavailable).strip("%")))
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(replicas=size, strategy=strategy))
        await wait_settled(cluster, size, "nginx:1")
        roll_out(cluster, "nginx:2")
        with trio.fail_after(600):
            while not is_settled(cluster, size, "nginx:2"):
                ready = [p for p in cluster.pods() if p["status"].get("phase") == "Running"]
                assert len(cluster.pods()) <= most
                assert len(ready) >= least
                await trio.sleep(0.05)
        assert meta.annotations(cluster.api.read(DEPLOYMENTS, KEY))[REVISION] == "2"
        assert sorted(rs["spec"]["replicas"] for rs in cluster.api.all(REPLICA_SETS)) == [0, size]


async def test_undo_reuses_the_old_set_under_a_new_revision(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(replicas=2))
        await wait_settled(cluster, 2, "nginx:1")
        roll_out(cluster, "nginx:2")
        await wait_settled(cluster, 2, "nginx:2")
        roll_out(cluster, "nginx:1")
        await wait_settled(cluster, 2, "nginx:1")
        sets = cluster.api.all(REPLICA_SETS)
        assert len(sets) == 2
        new = find_new(cluster.api.read(DEPLOYMENTS, KEY), sets)
        assert new is not None
        assert meta.annotations(new)[REVISION] == "3"
        assert meta.annotations(new)["deployment.kubernetes.io/revision-history"] == "1"


async def test_recreate_stops_all_before_it_starts_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(strategy={"type": "Recreate"}))
        await wait_settled(cluster, 3, "nginx:1")
        roll_out(cluster, "nginx:2")
        with trio.fail_after(60):
            while not is_settled(cluster, 3, "nginx:2"):
                kinds = {p["spec"]["containers"][0]["image"] for p in cluster.api.all(PODS)}
                assert len(kinds) <= 1, "terminating pods count too"
                await trio.sleep(0.05)


async def test_a_stuck_rollout_times_out_and_keeps_the_old_pods(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(replicas=4, progressDeadlineSeconds=30))
        await wait_settled(cluster, 4, "nginx:1")
        roll_out(cluster, "broken")
        await trio.sleep(20)
        progressing = get_condition(cluster.api.read(DEPLOYMENTS, KEY), "Progressing")
        assert progressing is not None
        assert progressing["reason"] == "ReplicaSetUpdated"
        await trio.sleep(30)
        stored = cluster.api.read(DEPLOYMENTS, KEY)
        progressing = get_condition(stored, "Progressing")
        assert progressing is not None
        assert (progressing["status"], progressing["reason"]) == (
            "False",
            "ProgressDeadlineExceeded",
        )
        assert images(cluster).count("nginx:1") == 3
        assert images(cluster).count("broken") == 2
        roll_out(cluster, "nginx:3")
        await wait_settled(cluster, 4, "nginx:3")


async def test_a_paused_deployment_scales_but_does_not_roll(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(replicas=2))
        await wait_settled(cluster, 2, "nginx:1")
        cluster.api.change(DEPLOYMENTS, KEY, lambda o: o["spec"].update(paused=True))
        roll_out(cluster, "nginx:2")
        cluster.api.change(DEPLOYMENTS, KEY, lambda o: o["spec"].update(replicas=4))
        await trio.sleep(10)
        assert images(cluster) == ["nginx:1"] * 4
        stored = cluster.api.read(DEPLOYMENTS, KEY)
        progressing = get_condition(stored, "Progressing")
        assert progressing is not None
        assert progressing["reason"] == "DeploymentPaused"
        cluster.api.change(DEPLOYMENTS, KEY, lambda o: o["spec"].update(paused=False))
        await wait_settled(cluster, 4, "nginx:2")


async def test_scaling_in_the_middle_of_a_rollout_is_shared_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(replicas=8))
        await wait_settled(cluster, 8, "nginx:1")
        roll_out(cluster, "broken")
        await trio.sleep(10)
        before = images(cluster).count("nginx:1"), images(cluster).count("broken")
        assert before == (6, 4)
        cluster.api.change(DEPLOYMENTS, KEY, lambda o: o["spec"].update(replicas=16))
        await trio.sleep(10)
        after = images(cluster).count("nginx:1"), images(cluster).count("broken")
        assert sum(after) == 20
        assert after == (12, 8)
        cluster.api.change(DEPLOYMENTS, KEY, lambda o: o["spec"].update(replicas=0))
        await trio.sleep(10)
        assert images(cluster) == []


async def test_old_revisions_beyond_the_limit_are_deleted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        cluster.api.add(DEPLOYMENTS, deployment(replicas=1, revisionHistoryLimit=2))
        for version in range(1, 7):
            roll_out(cluster, f"nginx:{version}")
            await wait_settled(cluster, 1, f"nginx:{version}")
        await trio.sleep(5)
        revisions = sorted(
            int(meta.annotations(o)[REVISION]) for o in cluster.api.all(REPLICA_SETS)
        )
        assert revisions == [4, 5, 6]


async def test_a_hash_collision_gets_another_name(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*APPS) as cluster:
        wanted = deployment(replicas=1)
        taken = replica_set(f"web-{template_hash(wanted['spec']['template'], 0)}", replicas=0)
        taken["spec"]["selector"] = {"matchLabels": {"other": "x"}}
        cluster.api.add(REPLICA_SETS, taken)
        cluster.api.add(DEPLOYMENTS, wanted)
        await wait_settled(cluster, 1, "nginx:1")
        assert cluster.api.read(DEPLOYMENTS, KEY)["status"]["collisionCount"] == 1
        assert len(cluster.api.all(REPLICA_SETS)) == 2


async def test_matching_orphans_are_adopted_and_others_released(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster("replicaset-controller") as cluster:
        cluster.api.add(PODS, pod("orphan"))
        cluster.api.add(REPLICA_SETS, replica_set(replicas=2))
        await trio.sleep(5)
        owner = cluster.api.read(REPLICA_SETS, "n/rs")
        assert is_controlled_by(cluster.api.read(PODS, "n/orphan"), owner)
        assert len(cluster.pods()) == 2
        cluster.api.change(PODS, "n/orphan", lambda o: o["metadata"].update(labels={}))
        await trio.sleep(5)
        assert not cluster.api.read(PODS, "n/orphan")["metadata"].get("ownerReferences")
        assert len(cluster.pods()) == 3


@pytest.mark.parametrize("seed", range(6))
async def test_lost_events_and_failing_writes_cost_time_only(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    async with open_cluster(*APPS, seed=seed) as cluster:
        flaky = Flaky(rng.randrange(3, 8))
        cluster.api.fault, cluster.api.lose_answers = flaky.before, flaky.after
        cluster.api.add(DEPLOYMENTS, deployment(replicas=5))
        for version in range(1, 6):
            roll_out(cluster, f"nginx:{version}")
            for _ in range(6):
                await trio.sleep(rng.random() * 2)
                if rng.random() < 0.5:
                    cluster.api.break_watches(compact=rng.random() < 0.5)
                if rng.random() < 0.2 and cluster.pods():
                    cluster.api.remove(PODS, "n/" + name(rng.choice(cluster.pods())))
        await wait_settled(cluster, 5, "nginx:5")
        await trio.sleep(60)
        assert is_settled(cluster, 5, "nginx:5")


async def test_no_pod_is_made_twice_while_the_cache_lags(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster("replicaset-controller", pods=False) as cluster:
        cluster.api.drop_events = lambda event, kind, obj: kind is PODS
        cluster.api.add(REPLICA_SETS, replica_set(replicas=3))
        await trio.sleep(5)
        for _ in range(5):
            cluster.api.change(REPLICA_SETS, "n/rs", lambda o: o["metadata"].update(labels={}))
            await trio.sleep(1)
        creates = [entry for entry in cluster.api.log if entry[:2] == ("create", "pods")]
        assert len(creates) == 3
        cluster.api.drop_events = None
        cluster.api.break_watches(compact=True)
        await trio.sleep(30)
        assert len(cluster.pods()) == 3
        assert [e for e in cluster.api.log if e[:2] == ("create", "pods")] == creates


async def test_a_quota_that_forbids_costs_one_request_a_try(
    autojump_clock: trio.testing.MockClock,
) -> None:
    from k8slite.api.status import forbidden

    async with open_cluster("replicaset-controller") as cluster:
        tries = []

        def quota(verb: str, kind: object, key: str) -> BaseException | None:
            if (verb, kind) == ("create", PODS):
                tries.append(trio.current_time())
                return forbidden(PODS, "x", "exceeded quota")
            return None

        cluster.api.fault = quota
        cluster.api.add(REPLICA_SETS, replica_set(replicas=100))
        await trio.sleep(10)
        assert len(tries) < 15
        failure = get_condition(cluster.api.read(REPLICA_SETS, "n/rs"), "ReplicaFailure")
        assert failure is not None
        assert failure["reason"] == "FailedCreate"
        assert "exceeded quota" in failure["message"]
        cluster.api.fault = None
        await trio.sleep(60)
        assert len(cluster.pods()) == 100
        assert get_condition(cluster.api.read(REPLICA_SETS, "n/rs"), "ReplicaFailure") is None


def test_a_template_hash_is_stable_and_spells_no_words() -> None:
    digest = template_hash(TEMPLATE, 0)
    assert digest == template_hash(dict(reversed(TEMPLATE.items())), 0)
    assert digest != template_hash(TEMPLATE, 1)
    assert set(digest) <= set("bcdfghjklmnpqrstvwxz2456789")
