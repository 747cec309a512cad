"""StatefulSets: numbered pods in order, updates from the top, partitions, claims."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio

from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from k8slite.api.meta import Obj, deleting, labels, name
from tests.client.fake_api import Flaky
from tests.controllers.objects import meta_of
from tests.controllers.world import Cluster, open_cluster

CONTROLLER = "statefulset-controller"
KEY = "n/db"


def stateful_set(replicas: int = 3, image: str = "nginx:1", **spec: Any) -> Obj:
    return {
        "metadata": meta_of("db", generation=1),
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
    }


def set_image(image: str, obj: Obj) -> None:
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image


def shown(cluster: Cluster) -> dict[str, str]:
    pods = [p for p in cluster.api.all(PODS) if not deleting(p)]
    return {name(p): p["spec"]["containers"][0]["image"] for p in sorted(pods, key=name)}


async def test_pods_come_one_after_another_and_go_from_the_top(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(STATEFUL_SETS, stateful_set())
        seen = []
        for _ in range(100):
            await trio.sleep(0.1)
            pods = cluster.api.all(PODS)
            waiting = [p for p in pods if p["status"].get("phase") != "Running"]
            assert len(waiting) <= 1
            seen.append(len(pods))
        assert seen == sorted(seen)
        assert [*shown(cluster)] == ["db-0", "db-1", "db-2"]
        first = cluster.api.read(PODS, "n/db-0")
        assert first["spec"]["hostname"] == "db-0"
        assert first["spec"]["subdomain"] == "db"
        assert labels(first)["apps.kubernetes.io/pod-index"] == "0"
        status = cluster.api.read(STATEFUL_SETS, KEY)["status"]
        assert status["readyReplicas"] == status["updatedReplicas"] == 3
        assert status["currentRevision"] == status["updateRevision"]
        cluster.api.change(STATEFUL_SETS, KEY, lambda o: o["spec"].update(replicas=1))
        await trio.sleep(0.5)
        assert [*shown(cluster)] == ["db-0", "db-1"], "one at a time"
        await trio.sleep(10)
        assert [*shown(cluster)] == ["db-0"]


async def test_parallel_pods_come_together(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(STATEFUL_SETS, stateful_set(4, podManagementPolicy="Parallel"))
        await trio.sleep(0.5)
        assert len(cluster.pods()) == 4


async def test_an_update_goes_down_from_the_top_to_the_partition(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        api = cluster.api
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
        api.add(STATEFUL_SETS, stateful_set(updateStrategy=rolling))
        await trio.sleep(20)
        api.change(STATEFUL_SETS, KEY, partial(set_image, "nginx:2"))
        await trio.sleep(20)
        assert shown(cluster) == {"db-0": "nginx:1", "db-1": "nginx:1", "db-2": "nginx:2"}
        api.remove(PODS, "n/db-0")
        await trio.sleep(20)
        assert shown(cluster)["db-0"] == "nginx:1", "below the partition the old one comes back"
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
        api.change(STATEFUL_SETS, KEY, lambda o: o["spec"].update(updateStrategy=rolling))
        for _ in range(300):
            ready = [p for p in cluster.pods() if p["status"].get("phase") == "Running"]
            assert len(ready) >= 2
            await trio.sleep(0.1)
        assert set(shown(cluster).values()) == {"nginx:2"}
        status = api.read(STATEFUL_SETS, KEY)["status"]
        assert status["currentRevision"] == status["updateRevision"]


async def test_each_number_has_claims_that_outlive_its_pod(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
        cluster.api.add(STATEFUL_SETS, stateful_set(2, volumeClaimTemplates=[claim]))
        await trio.sleep(10)
        claims = [*cluster.api.objects[PERSISTENT_VOLUME_CLAIMS]]
        assert claims == ["n/data-db-0", "n/data-db-1"]
        [volume] = cluster.api.read(PODS, "n/db-1")["spec"]["volumes"]
        assert volume["persistentVolumeClaim"] == {"claimName": "data-db-1"}
        cluster.api.remove(PODS, "n/db-1")
        await trio.sleep(10)
        assert len(cluster.pods()) == 2
        assert [*cluster.api.objects[PERSISTENT_VOLUME_CLAIMS]] == claims


@pytest.mark.parametrize("seed", range(4))
async def test_it_converges_over_faults(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    rng = random.Random(seed)
    async with open_cluster(CONTROLLER, seed=seed) as cluster:
        api = cluster.api
        flaky = Flaky(rng.randrange(3, 7))
        api.fault, api.lose_answers = flaky.before, flaky.after
        api.add(STATEFUL_SETS, stateful_set())
        for step in range(30):
            await trio.sleep(rng.random() * 3)
            if rng.random() < 0.3:
                api.break_watches(compact=rng.random() < 0.5)
            if rng.random() < 0.2:
                api.change(STATEFUL_SETS, KEY, partial(set_image, f"nginx:{step}"))
            if rng.random() < 0.2 and cluster.pods():
                api.remove(PODS, "n/" + name(rng.choice(cluster.pods())))
        api.change(STATEFUL_SETS, KEY, partial(set_image, "nginx:last"))
        await trio.sleep(300)
        assert shown(cluster) == dict.fromkeys(("db-0", "db-1", "db-2"), "nginx:last")


def with_claims(**policy: str) -> Obj:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    return stateful_set(
        2, volumeClaimTemplates=[claim], persistentVolumeClaimRetentionPolicy=policy
    )


def owners(cluster: Cluster) -> dict[str, list[str]]:
    return {
        name(c): [r["kind"] for r in c["metadata"].get("ownerReferences") or ()]
        for c in cluster.api.all(PERSISTENT_VOLUME_CLAIMS)
    }


async def test_claims_belong_to_whoever_takes_them_along(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, "garbage-collector-controller") as cluster:
        api = cluster.api
        api.add(STATEFUL_SETS, with_claims(whenDeleted="Delete", whenScaled="Delete"))
        await trio.sleep(10)
        assert owners(cluster) == {
            "data-db-0": ["StatefulSet"],
            "data-db-1": ["StatefulSet"],
        }
        cluster.stop_seconds = 5.0
        api.change(STATEFUL_SETS, KEY, lambda o: o["spec"].update(replicas=1))
        await trio.sleep(2)
        assert owners(cluster)["data-db-1"] == ["Pod"]
        await trio.sleep(60)
        assert owners(cluster) == {"data-db-0": ["StatefulSet"]}
        keep = {"whenDeleted": "Retain", "whenScaled": "Retain"}
        policy = {"persistentVolumeClaimRetentionPolicy": keep}
        api.change(STATEFUL_SETS, KEY, lambda o: o["spec"].update(policy))
        await trio.sleep(5)
        assert owners(cluster) == {"data-db-0": []}


async def test_a_claim_of_somebody_else_is_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        foreign = {"kind": "Other", "apiVersion": "v1", "name": "x", "uid": "x", "controller": True}
        metadata = {**meta_of("data-db-0"), "ownerReferences": [foreign]}
        cluster.api.add(PERSISTENT_VOLUME_CLAIMS, {"metadata": metadata, "spec": {}})
        cluster.api.add(STATEFUL_SETS, with_claims(whenDeleted="Delete"))
        await trio.sleep(10)
        assert owners(cluster) == {"data-db-0": ["Other"], "data-db-1": ["StatefulSet"]}


async def test_several_may_be_replaced_at_once(autojump_clock: trio.testing.MockClock) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}
    spec = {"updateStrategy": rolling, "podManagementPolicy": "Parallel"}
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(STATEFUL_SETS, stateful_set(5, **spec))
        await trio.sleep(10)
        cluster.api.change(STATEFUL_SETS, KEY, partial(set_image, "nginx:2"))
        least = 5
        for _ in range(150):
            await trio.sleep(0.1)
            up = [
                p
                for p in cluster.api.all(PODS)
                if p["status"].get("phase") == "Running" and not deleting(p)
            ]
            least = min(least, len(up))
        assert least == 3, "half of five, rounded down"
        assert {*shown(cluster).values()} == {"nginx:2"}


async def test_numbers_begin_where_the_set_says(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        cluster.api.add(STATEFUL_SETS, stateful_set(2, ordinals={"start": 5}))
        await trio.sleep(10)
        assert [*shown(cluster)] == ["db-5", "db-6"]
        cluster.api.change(STATEFUL_SETS, KEY, lambda o: o["spec"].update(ordinals={"start": 6}))
        await trio.sleep(20)
        assert [*shown(cluster)] == ["db-6", "db-7"]
