"""Silent nodes: conditions, taints, evictions, and the orphans of nodes that are gone."""

from __future__ import annotations

import pytest
import trio

from k8slite.api.kinds import LEASES, NODES, PODS, Kind
from k8slite.api.meta import Obj, deleting, get_condition
from k8slite.api.status import service_unavailable
from k8slite.api.taints import tolerates
from k8slite.controllers.actions import Delete
from k8slite.controllers.nodes.pod_gc import plan as plan_gc
from k8slite.controllers.nodes.taint_eviction import NEVER, eviction_time
from k8slite.controllers.nodes.taints import replace_taints, taint
from tests.controllers.objects import node, pod
from tests.controllers.world import Cluster, open_cluster

NODE_CONTROLLERS = (
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
)
UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
TOLERATE_300 = [
    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in (NOT_READY, UNREACHABLE)
]


def tolerant(name: str, on: str) -> Obj:
    obj = pod(name, node=on)
    obj["spec"]["tolerations"] = TOLERATE_300
    return obj


async def renew(cluster: Cluster, names: list[str]) -> None:
    """The Leases of living kubelets."""
    while True:
        for own in names:
            where = f"kube-node-lease/{own}"
            spec = {"renewTime": f"{cluster.api.now()}-{cluster.api.version}"}
            if where in cluster.api.objects.get(LEASES, {}):
                cluster.api.change(LEASES, where, lambda o, s=spec: o.update(spec=s))  # type: ignore[misc]
            else:
                metadata = {"name": own, "namespace": "kube-node-lease"}
                cluster.api.add(LEASES, {"metadata": metadata, "spec": spec})
        await trio.sleep(10)


def effects(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    taints = cluster.api.read(NODES, name)["spec"].get("taints") or []
    return sorted((t["key"], t["effect"]) for t in taints)


async def test_a_silent_node_is_tainted_after_its_grace_and_its_pods_go_after_theirs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*NODE_CONTROLLERS, pods=False) as cluster:
        api, living = cluster.api, ["a", "b"]
        for own in living:
            api.add(NODES, node(own))
            api.add(PODS, tolerant(f"on-{own}", own))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, cluster, living)
            await trio.sleep(100)
            assert effects(cluster, "b") == []
            living.remove("b")
            await trio.sleep(25)
            assert effects(cluster, "b") == []
            await trio.sleep(35)
            assert effects(cluster, "b") == [
                (UNREACHABLE, "NoExecute"),
                (UNREACHABLE, "NoSchedule"),
            ]
            ready = get_condition(api.read(NODES, "b"), "Ready")
            assert ready is not None
            assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
            assert ready["message"] == "Kubelet stopped posting node status."
            of_pod = get_condition(api.read(PODS, "n/on-b"), "Ready")
            assert of_pod is not None
            assert of_pod["status"] == "False"
            await trio.sleep(260)
            assert not deleting(api.read(PODS, "n/on-b"))
            await trio.sleep(50)
            assert deleting(api.read(PODS, "n/on-b"))
            target = get_condition(api.read(PODS, "n/on-b"), "DisruptionTarget")
            assert target is not None
            assert target["reason"] == "DeletionByTaintManager"
            assert not deleting(api.read(PODS, "n/on-a"))
            assert effects(cluster, "a") == []
            nursery.cancel_scope.cancel()


async def test_a_node_that_comes_back_in_time_keeps_its_pods(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*NODE_CONTROLLERS, pods=False) as cluster:
        api, living = cluster.api, ["a"]
        for own in ("a", "b"):
            api.add(NODES, node(own))
            api.add(PODS, tolerant(f"on-{own}", own))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, cluster, living)
            await trio.sleep(120)
            assert (UNREACHABLE, "NoExecute") in effects(cluster, "b")
            living.append("b")
            [condition] = node("b")["status"]["conditions"]
            condition["lastHeartbeatTime"] = api.now()
            api.set_status(NODES, "b", conditions=[condition])
            await trio.sleep(400)
            assert effects(cluster, "b") == []
            assert not deleting(api.read(PODS, "n/on-b"))
            nursery.cancel_scope.cancel()


async def test_when_all_nodes_are_silent_nobody_is_evicted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*NODE_CONTROLLERS, pods=False) as cluster:
        for own in ("a", "b", "c"):
            cluster.api.add(NODES, node(own))
            cluster.api.add(PODS, tolerant(f"on-{own}", own))
        await trio.sleep(2000)
        for own in ("a", "b", "c"):
            assert effects(cluster, own) == [(UNREACHABLE, "NoSchedule")]
            assert not deleting(cluster.api.read(PODS, f"n/on-{own}"))


async def test_nodes_are_evicted_at_a_rate(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster(*NODE_CONTROLLERS, pods=False) as cluster:
        alive = [f"a{i}" for i in range(6)]
        for own in (*alive, "b", "c", "d"):
            cluster.api.add(NODES, node(own))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, cluster, alive)
            times: dict[str, float] = {}
            for _ in range(200):
                await trio.sleep(0.5)
                for own in ("b", "c", "d"):
                    if (UNREACHABLE, "NoExecute") in effects(cluster, own):
                        times.setdefault(own, trio.current_time())
            nursery.cancel_scope.cancel()
        first, second, third = sorted(times.values())
        assert second - first >= 9
        assert third - second >= 9


async def test_a_zone_that_is_mostly_silent_loses_no_node(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(*NODE_CONTROLLERS, pods=False) as cluster:
        for own in ("a", "b", "c", "d"):
            cluster.api.add(NODES, node(own))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, cluster, ["a"])
            await trio.sleep(200)
            for own in ("b", "c", "d"):
                assert effects(cluster, own) == [(UNREACHABLE, "NoSchedule")]
            nursery.cancel_scope.cancel()


async def test_cordoning_taints_the_node(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster("node-lifecycle-controller", pods=False) as cluster:
        cluster.api.add(NODES, node("a"))
        cluster.api.change(NODES, "a", lambda o: o["spec"].update(unschedulable=True))
        await trio.sleep(1)
        assert effects(cluster, "a") == [("node.kubernetes.io/unschedulable", "NoSchedule")]
        cluster.api.change(NODES, "a", lambda o: o["spec"].update(unschedulable=False))
        await trio.sleep(1)
        assert effects(cluster, "a") == []


async def test_pods_of_a_node_that_does_not_exist_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster("pod-garbage-collector-controller", pods=False) as cluster:
        api = cluster.api
        api.add(NODES, node("a"))
        api.add(PODS, pod("kept", node="a"))
        api.add(PODS, pod("orphan", node="gone"))
        api.add(PODS, pod("stuck", node="gone", terminating=True))
        api.add(PODS, pod("unbound", node="", terminating=True))
        await trio.sleep(10)
        assert "n/orphan" in api.objects[PODS], "it is in quarantine"

        def down(verb: str, kind: Kind, key: str) -> BaseException | None:
            return service_unavailable("down")

        api.fault = down
        await trio.sleep(100)
        assert "n/orphan" in api.objects[PODS], "nobody could say that the node is gone"
        api.fault = None
        await trio.sleep(100)
        assert [*api.objects[PODS]] == ["n/kept"]


def test_the_oldest_finished_pods_go_first() -> None:
    pods = [
        pod(f"p{i}", phase="Succeeded", creationTimestamp=f"2023-01-0{i}T00:00:00Z")
        for i in (3, 1, 2)
    ]
    plans = plan_gc(pods, (), (), 1, 0.0)
    assert [a.name for actions in plans for a in actions if isinstance(a, Delete)] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "k", "operator": "Equal", "value": "v"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"operator": "Equal", "value": "v"}, False),
    ],
)
def test_tolerations(toleration: Obj, expected: bool) -> None:
    assert tolerates(toleration, {"key": "k", "value": "v", "effect": "NoExecute"}) is expected


def test_the_time_of_eviction_is_the_shortest_toleration_of_any_taint() -> None:
    added = {"timeAdded": "1970-01-01T00:01:40Z"}
    one = {"key": "k", "effect": "NoExecute", **added}
    two = {"key": "l", "effect": "NoExecute", **added}
    forever = [{"operator": "Exists"}]
    assert eviction_time(forever, [one, two], 500.0) == NEVER
    assert eviction_time([], [one], 500.0) == 500.0
    assert eviction_time([], [{"key": "k", "effect": "NoSchedule"}], 500.0) == NEVER
    seconds = [{"key": "k", "operator": "Exists", "tolerationSeconds": 60}]
    assert eviction_time(seconds, [one], 120.0) == 160.0
    assert eviction_time(seconds, [one, two], 120.0) == 120.0


def test_taints_of_others_stay_and_ours_keep_their_time() -> None:
    theirs, ours = taint("x", "NoExecute"), taint("k", "NoSchedule", "then")
    managed = [("k", "NoSchedule"), ("l", "NoSchedule")]
    wanted = [taint("k", "NoSchedule", "now"), taint("l", "NoSchedule", "now")]
    assert replace_taints([theirs, ours], managed, wanted) == [theirs, ours, wanted[1]]
    assert replace_taints([theirs, ours], managed, []) == [theirs]
