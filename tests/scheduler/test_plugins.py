"""Plugins with arguments, and those that most pods never meet: volumes, limits, defaults."""

from __future__ import annotations

import random
from typing import Any

import pytest

from k8slite.api.meta import Obj
from k8slite.scheduler.config import Configuration, ProfileConfig, build_profiles
from k8slite.scheduler.decide import Decision, decide
from k8slite.scheduler.framework import SKIP, Handle, InvalidArgs, Only
from k8slite.scheduler.plugins.node_affinity import NodeAffinity
from k8slite.scheduler.plugins.resources import BalancedAllocation, ResourcesFit, interpolated
from k8slite.scheduler.plugins.spread import TopologySpread
from k8slite.scheduler.plugins.table import PLUGINS
from k8slite.scheduler.pod_info import pod_info
from k8slite.scheduler.snapshot import Snapshot
from tests.scheduler.objects import node, pod

GPU = "nvidia.com/gpu"


def cluster(nodes: list[Obj], pods: list[Obj] = []) -> Snapshot:  # noqa: B006 - never changed
    snapshot = Snapshot()
    for one in nodes:
        snapshot.put_node(one)
    for one in pods:
        snapshot.put_pod(pod_info(one))
    return snapshot


def place(snapshot: Snapshot, new: Obj, **args: dict[str, Any]) -> Decision:
    config = Configuration(profiles=(ProfileConfig(args=args),))
    profiles = build_profiles(config, PLUGINS.get, lambda own: Handle(snapshot, own))
    return decide(pod_info(new), snapshot, 0, random.Random(1), profiles["default-scheduler"])


def fit(**strategy: Any) -> ResourcesFit:
    return ResourcesFit({"scoringStrategy": strategy}, Handle())


def score(plugin: ResourcesFit | BalancedAllocation, on: Obj, new: Obj, *pods: Obj) -> int:
    snapshot = cluster([on], [*pods])
    [there] = snapshot.nodes
    return plugin.score(None, pod_info(new), there)


def test_how_nodes_are_compared() -> None:
    half = node("a", "4", "8Gi"), pod("p", "1", "2Gi"), pod("q", "1", "2Gi", on="a")
    assert score(fit(), *half) == 50
    assert score(fit(type="MostAllocated"), *half) == 50
    weighted = [{"name": "cpu", "weight": 3}, {"name": "memory", "weight": 1}]
    uneven = node("a", "4", "8Gi"), pod("p", "3", "2Gi")
    assert score(fit(resources=weighted), *uneven) == (3 * 25 + 75) // 4
    assert score(fit(type="MostAllocated", resources=weighted), *uneven) == (3 * 75 + 25) // 4


def test_devices_count_for_pods_that_ask_for_them_alone() -> None:
    resources = [{"name": GPU, "weight": 5}, {"name": "cpu", "weight": 1}]
    on = node("a", "4", more={GPU: "8"})
    most = fit(type="MostAllocated", resources=resources)
    assert score(most, on, pod("p", "4", requests={GPU: "4"})) == (5 * 50 + 100) // 6
    assert score(most, on, pod("p", "4")) == 100


def test_a_shape_says_how_full_is_good() -> None:
    shape = [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]
    ratio = {"requestedToCapacityRatio": {"shape": shape}, "type": "RequestedToCapacityRatio"}
    bin_packing = fit(**ratio, resources=[{"name": GPU}])
    on = node("a", more={GPU: "8"})
    assert score(bin_packing, on, pod("p", requests={GPU: "2"})) == 25
    assert score(bin_packing, on, pod("p", requests={GPU: "8"})) == 100
    assert [interpolated([(0, 10), (50, 5), (100, 0)], at, 10) for at in (0, 25, 50, 75, 200)] == [
        100, 75, 50, 25, 0,
    ]  # fmt: skip


def test_balance_is_about_requests_and_leaves_out_who_has_none() -> None:
    balanced = BalancedAllocation({}, Handle())
    snapshot = cluster([node("a")])
    assert balanced.pre_score(pod_info(pod("p")), snapshot, snapshot.nodes) is SKIP
    assert score(balanced, node("a", "4", "8Gi"), pod("p", "2", "4Gi")) == 100
    assert score(balanced, node("a", "4", "8Gi"), pod("p", "4", "4Gi")) == 75
    three = [{"name": "cpu"}, {"name": "memory"}, {"name": GPU}]
    with_gpu = BalancedAllocation({"resources": three}, Handle())
    on, new = node("a", "4", "8Gi", more={GPU: "4"}), pod("p", "4", "8Gi", requests={GPU: "1"})
    assert score(with_gpu, on, new) == 64


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        ({"type": "Best"}, "scoringStrategy.type: 'Best' is not one of"),
        ({"resources": [{"name": "cpu", "weight": 101}]}, "weight: 101 is not from 1 to 100"),
        ({"type": "RequestedToCapacityRatio"}, "at least one point"),
    ],
)
def test_what_cannot_be_is_told(strategy: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgs, match=told):
        fit(**strategy)


def test_resources_that_others_look_after_are_not_looked_at() -> None:
    snapshot = cluster([node("a")])
    new = pod("p", requests={"example.com/licence": "1"})
    assert not place(snapshot, new).node
    ignored = {"ignoredResources": ["example.com/licence"]}
    assert place(snapshot, new, NodeResourcesFit=ignored).node == "a"
    groups = {"ignoredResourceGroups": ["example.com"]}
    assert place(snapshot, new, NodeResourcesFit=groups).node == "a"


def test_a_profile_can_keep_its_pods_on_some_nodes() -> None:
    snapshot = cluster([node("a"), node("b", labels={"pool": "gpu"})])
    wanted = {"key": "pool", "operator": "In", "values": ["gpu"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}
    args = {"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    assert place(snapshot, pod("p"), NodeAffinity=args).node == "b"
    alone = cluster([node("a")])
    told = "node(s) didn't match scheduler-enforced node affinity"
    assert told in place(alone, pod("p"), NodeAffinity=args).message


def for_node(own: str) -> Obj:
    field = {"key": "metadata.name", "operator": "In", "values": [own]}
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def test_a_daemons_pod_has_one_node_to_look_at() -> None:
    snapshot = cluster([node(f"n{i}", "1") for i in range(50)])
    daemon = pod("p", "2", affinity=for_node("n7"))
    state = NodeAffinity({}, Handle()).pre_filter(pod_info(daemon), snapshot)
    assert isinstance(state, Only)
    assert [*state.nodes] == ["n7"]
    decision = place(snapshot, daemon)
    assert (decision.looked_at, decision.resolvable) == (1, ())
    assert decision.message == "0/50 nodes are available: 1 Insufficient cpu."


def test_pods_of_one_controller_go_to_other_nodes_and_zones() -> None:
    zones = [{"topology.kubernetes.io/zone": z} for z in "aabb"]
    snapshot = cluster([node(f"n{i}", "64", labels=zones[i]) for i in range(4)])
    for i in range(8):
        info = pod_info(pod(f"p{i}", "1m", owner="rs"))
        snapshot.assume(info, place(snapshot, info.pod).node)
    assert [len(n.pods) for n in snapshot.nodes] == [2, 2, 2, 2]


def test_pods_behind_one_service_are_spread_too_and_jobs_are_not() -> None:
    snapshot = cluster([node("a"), node("b")])
    snapshot.counters.set_service("n", "web", {"app": "web"})
    plugin = TopologySpread({}, Handle(snapshot))
    alone = pod_info(pod("p", labels={"app": "web"}))
    assert plugin.pre_score(alone, snapshot, snapshot.nodes) is not SKIP
    assert plugin.pre_score(pod_info(pod("q")), snapshot, snapshot.nodes) is SKIP
    of_job = pod("r", owner="job")
    of_job["metadata"]["ownerReferences"][0]["kind"] = "Job"
    assert plugin.pre_score(pod_info(of_job), snapshot, snapshot.nodes) is SKIP


def test_default_constraints_can_be_hard() -> None:
    rule = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    args = {"defaultingType": "List", "defaultConstraints": [rule]}
    snapshot = cluster([node("a", "1", labels={"zone": "1"}), node("b", labels={"zone": "2"})])
    snapshot.put_pod(pod_info(pod("x", on="b", owner="rs")))
    full = pod("p", "2", owner="rs")
    told = "1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints"
    assert told in place(snapshot, full, PodTopologySpread=args).message
    with pytest.raises(InvalidArgs, match="only with defaultingType List"):
        TopologySpread({"defaultConstraints": [rule]}, Handle())


def test_a_node_without_one_of_the_labels_does_not_count() -> None:
    selector = {"matchLabels": {"app": "x"}}
    rules = [
        {"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
        | {"labelSelector": selector}
        for key in ("zone", "rack")
    ]
    nodes = [
        node("a", labels={"zone": "1", "rack": "1"}),
        node("b", labels={"zone": "2"}),
    ]
    snapshot = cluster(nodes, [pod("x", on="a", labels={"app": "x"})])
    new = pod("p", labels={"app": "x"}, topologySpreadConstraints=rules)
    assert place(snapshot, new).node == "a", "zone 2 has no node that counts"


def test_stopping_pods_are_not_counted_when_spreading() -> None:
    rule = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}
    spread = [{**rule, "labelSelector": {"matchLabels": {"app": "x"}}}]
    stopping = pod("x", on="a", labels={"app": "x"})
    stopping["metadata"]["deletionTimestamp"] = "2023-01-01T00:00:00Z"
    nodes = [node("a", labels={"zone": "1"}), node("b", "1", labels={"zone": "2"})]
    new = pod("p", "2", labels={"app": "x"}, topologySpreadConstraints=spread)
    assert place(cluster(nodes, [stopping]), new).node == "a"
    assert not place(cluster(nodes, [pod("x", on="a", labels={"app": "x"})]), new).node


def test_company_is_one_pod_that_all_terms_choose() -> None:
    terms = [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": wanted}}
        for wanted in ({"app": "x"}, {"tier": "db"})
    ]
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    apart = [pod("x", on="a", labels={"app": "x"}), pod("y", on="a", labels={"tier": "db"})]
    assert not place(cluster([node("a")], apart), pod("p", affinity=affinity)).node
    both = [pod("x", on="a", labels={"app": "x", "tier": "db"})]
    assert place(cluster([node("a")], both), pod("p", affinity=affinity)).node == "a"


# --- volumes -------------------------------------------------------------------------------------


def claim(own: str, volume: str = "", **spec: Any) -> Obj:
    notes = {"pv.kubernetes.io/bind-completed": "yes"} if volume else {}
    metadata = {"name": own, "namespace": "n", "uid": f"uid-{own}", "annotations": notes}
    return {"metadata": metadata, "spec": {"volumeName": volume, **spec}}


def volume(own: str, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    return {"metadata": {"name": own, "labels": labels or {}}, "spec": spec}


def with_claims(own: str, *claims: str, on: str = "") -> Obj:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    return pod(own, on=on, volumes=volumes)


def test_a_claim_for_one_pod_is_for_one_pod() -> None:
    snapshot = cluster([node("a"), node("b")])
    only = claim("c", "v", accessModes=["ReadWriteOncePod"])
    snapshot.storage.claims["n/c"] = only
    snapshot.storage.volumes["v"] = volume("v")
    assert place(snapshot, with_claims("p", "c")).node
    snapshot.put_pod(pod_info(with_claims("q", "c", on="a")))
    refused = place(snapshot, with_claims("p", "c"))
    told = "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod"
    assert told in refused.message
    assert refused.resolvable == ("a", "b")
    snapshot.remove_pod("uid-of-q")
    assert place(snapshot, with_claims("p", "c")).node


def test_a_disk_that_is_written_to_is_mounted_once() -> None:
    disk = {"name": "d", "awsElasticBlockStore": {"volumeID": "v1"}}
    snapshot = cluster([node("a")], [pod("q", on="a", volumes=[disk])])
    assert "no available disk" in place(snapshot, pod("p", volumes=[disk])).message
    shared = {"name": "d", "gcePersistentDisk": {"pdName": "v1", "readOnly": True}}
    snapshot = cluster([node("a")], [pod("q", on="a", volumes=[shared])])
    assert place(snapshot, pod("p", volumes=[shared])).node == "a"


def test_a_volume_is_had_in_its_zone() -> None:
    zone = "topology.kubernetes.io/zone"
    snapshot = cluster([node("a", labels={zone: "1"}), node("b", labels={zone: "2"})])
    snapshot.storage.claims["n/c"] = claim("c", "v")
    snapshot.storage.volumes["v"] = volume("v", {zone: "2__3"})
    assert place(snapshot, with_claims("p", "c")).node == "b"
    snapshot.storage.volumes["v"] = volume("v", {zone: "4"})
    assert (
        "2 node(s) had no available volume zone" in place(snapshot, with_claims("p", "c")).message
    )


def test_a_driver_says_how_many_volumes_a_node_can_have() -> None:
    snapshot = cluster([node("a"), node("b")])
    for i in range(3):
        snapshot.storage.claims[f"n/c{i}"] = claim(f"c{i}", f"v{i}")
        csi = {"driver": "disk.example.com", "volumeHandle": f"h{i}"}
        snapshot.storage.volumes[f"v{i}"] = volume(f"v{i}", csi=csi)
    limit = {"name": "disk.example.com", "allocatable": {"count": 2}}
    for own in ("a", "b"):
        snapshot.storage.csi_nodes[own] = {"metadata": {}, "spec": {"drivers": [limit]}}
    snapshot.put_pod(pod_info(with_claims("q", "c0", "c1", on="a")))
    assert place(snapshot, with_claims("p", "c2")).node == "b"
    assert place(snapshot, with_claims("p", "c0")).node, "it is there already"
    attachment = {"attacher": "disk.example.com", "nodeName": "b"}
    for i in (0, 1):
        source = {"persistentVolumeName": f"v{i}"}
        snapshot.storage.attachments[f"t{i}"] = {
            "metadata": {},
            "spec": {**attachment, "source": source},
        }
    assert "2 node(s) exceed max volume count" in place(snapshot, with_claims("p", "c2")).message


def test_a_driver_says_where_it_has_room() -> None:
    snapshot = cluster([node("a", labels={"z": "1"}), node("b", labels={"z": "2"})])
    storage = snapshot.storage
    asked = {"resources": {"requests": {"storage": "5Gi"}}, "storageClassName": "fast"}
    storage.claims["n/c"] = claim("c", **asked)
    storage.classes["fast"] = {
        "metadata": {"name": "fast"},
        "provisioner": "disk.example.com",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    storage.csi_drivers["disk.example.com"] = {"metadata": {}, "spec": {"storageCapacity": True}}
    for zone, left in (("1", "1Gi"), ("2", "10Gi")):
        storage.capacities[zone] = {
            "metadata": {},
            "storageClassName": "fast",
            "capacity": left,
            "nodeTopology": {"matchLabels": {"z": zone}},
        }
    assert place(snapshot, with_claims("p", "c")).node == "b"
    storage.capacities["2"]["capacity"] = "2Gi"
    assert (
        "2 node(s) did not have enough free storage"
        in place(snapshot, with_claims("p", "c")).message
    )
