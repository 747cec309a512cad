"""DaemonSets: one pod a node that fits, coming, going and being replaced with the nodes."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import trio

from k8slite.api.kinds import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from k8slite.api.meta import Obj, labels, name
from k8slite.controllers.workloads.daemonset import fits, node_of
from tests.client.fake_api import FakeApi, Flaky
from tests.controllers.objects import TEMPLATE, meta_of, node
from tests.controllers.world import Cluster, open_cluster

CONTROLLER = "daemonset-controller"
KEY = "n/agent"


def daemon_set(image: str = "nginx:1", **spec: Any) -> Obj:
    template: Obj = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }
    return {
        "metadata": meta_of("agent", generation=1),
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            **spec,
        },
    }


def set_image(image: str, obj: Obj) -> None:
    obj["spec"]["template"]["spec"]["containers"][0]["image"] = image


def where(cluster: Cluster) -> list[str]:
    return sorted(node_of(p) for p in cluster.pods())


def images(cluster: Cluster) -> list[str]:
    return [p["spec"]["containers"][0]["image"] for p in cluster.pods()]


def add_nodes(api: FakeApi, names: str) -> None:
    for own in names:
        api.add(NODES, node(own))


async def test_every_node_gets_one_and_the_status_counts_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        add_nodes(cluster.api, "ab")
        cluster.api.add(DAEMON_SETS, daemon_set())
        await trio.sleep(10)
        assert where(cluster) == ["a", "b"]
        add_nodes(cluster.api, "c")
        await trio.sleep(10)
        assert where(cluster) == ["a", "b", "c"]
        assert cluster.api.read(DAEMON_SETS, KEY)["status"] == {
            "currentNumberScheduled": 3,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 3,
            "numberReady": 3,
            "observedGeneration": 1,
            "updatedNumberScheduled": 3,
            "numberAvailable": 3,
        }
        cluster.api.remove(NODES, "b")
        await trio.sleep(10)
        assert where(cluster) == ["a", "c"]


async def test_a_new_template_goes_round_one_node_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER) as cluster:
        add_nodes(cluster.api, "abcd")
        cluster.api.add(DAEMON_SETS, daemon_set())
        await trio.sleep(10)
        cluster.api.change(DAEMON_SETS, KEY, partial(set_image, "nginx:2"))
        for _ in range(400):
            ready = [p for p in cluster.pods() if p["status"].get("phase") == "Running"]
            assert len(ready) >= 3
            await trio.sleep(0.1)
        assert images(cluster) == ["nginx:2"] * 4
        revisions = {r["revision"]: r for r in cluster.api.all(CONTROLLER_REVISIONS)}
        assert [*revisions] == [1, 2]
        hashes = {labels(p)["controller-revision-hash"] for p in cluster.pods()}
        assert hashes == {labels(revisions[2])["controller-revision-hash"]}
        template = revisions[1]["data"]["spec"]["template"]
        assert template["$patch"] == "replace"
        cluster.api.change(DAEMON_SETS, KEY, partial(set_image, "nginx:1"))
        await trio.sleep(40)
        assert images(cluster) == ["nginx:1"] * 4
        assert sorted(r["revision"] for r in cluster.api.all(CONTROLLER_REVISIONS)) == [2, 3]


@pytest.mark.parametrize(
    ("taint", "spec", "expected"),
    [
        (None, {}, (True, True)),
        ({"key": "k", "effect": "NoSchedule"}, {}, (False, True)),
        ({"key": "k", "effect": "NoExecute"}, {}, (False, False)),
        ({"key": "k", "effect": "PreferNoSchedule"}, {}, (True, True)),
        ({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}, {}, (True, True)),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, {}, (True, True)),
        (None, {"nodeSelector": {"disk": "ssd"}}, (False, False)),
    ],
)
def test_which_nodes_fit(taint: Obj | None, spec: Obj, expected: tuple[bool, bool]) -> None:
    one = daemon_set(template={**TEMPLATE, "spec": {**TEMPLATE["spec"], **spec}})
    assert fits(one, node("a", taints=[taint] if taint else None)) == expected


@pytest.mark.parametrize("seed", range(4))
async def test_it_converges_over_faults(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    rng = random.Random(seed)
    async with open_cluster(CONTROLLER, seed=seed) as cluster:
        api = cluster.api
        flaky = Flaky(rng.randrange(3, 7))
        api.fault, api.lose_answers = flaky.before, flaky.after
        add_nodes(api, "abc")
        api.add(DAEMON_SETS, daemon_set())
        for step in range(30):
            await trio.sleep(rng.random() * 3)
            if rng.random() < 0.3:
                api.break_watches(compact=rng.random() < 0.5)
            if rng.random() < 0.2:
                api.change(DAEMON_SETS, KEY, partial(set_image, f"nginx:{step}"))
            if rng.random() < 0.2 and cluster.pods():
                api.remove(PODS, "n/" + name(rng.choice(cluster.pods())))
        api.change(DAEMON_SETS, KEY, partial(set_image, "nginx:last"))
        await trio.sleep(200)
        assert where(cluster) == ["a", "b", "c"]
        assert images(cluster) == ["nginx:last"] * 3


async def test_a_surge_brings_the_new_pod_before_the_old_one_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    async with open_cluster(CONTROLLER) as cluster:
        api = cluster.api
        add_nodes(api, "abc")
        api.add(DAEMON_SETS, daemon_set(updateStrategy=rolling))
        await trio.sleep(10)
        api.change(DAEMON_SETS, KEY, partial(set_image, "nginx:2"))
        most = 0
        for _ in range(300):
            await trio.sleep(0.1)
            up = [p for p in cluster.pods() if p["status"].get("phase") == "Running"]
            assert {node_of(p) for p in up} == {"a", "b", "c"}, "no node is ever without"
            coming = [p for p in cluster.pods() if p not in up]
            most = max(most, len(coming))
        assert most == 1
        assert images(cluster) == ["nginx:2"] * 3


async def test_a_surge_that_comes_to_nothing_stops_where_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}
    async with open_cluster(CONTROLLER) as cluster:
        api = cluster.api
        add_nodes(api, "abcd")
        api.add(DAEMON_SETS, daemon_set(updateStrategy=rolling))
        await trio.sleep(10)
        api.change(DAEMON_SETS, KEY, partial(set_image, "broken"))
        await trio.sleep(60)
        assert sorted(images(cluster)) == ["broken"] * 2 + ["nginx:1"] * 4
        api.change(DAEMON_SETS, KEY, partial(set_image, "nginx:3"))
        await trio.sleep(60)
        assert images(cluster) == ["nginx:3"] * 4
