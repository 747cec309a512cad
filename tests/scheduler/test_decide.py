"""Decisions: each filter by a table, messages word by word, a dumb twin over random clusters."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api import quantity
from k8slite.api.meta import Obj, name
from k8slite.api.taints import tolerates
from k8slite.scheduler.config import default_profile
from k8slite.scheduler.decide import Decision, decide, nodes_to_find
from k8slite.scheduler.framework import Handle
from k8slite.scheduler.pod_info import PodInfo, pod_info, pod_requests
from k8slite.scheduler.preempt import candidates, cheapest, useless_message
from k8slite.scheduler.snapshot import Snapshot
from tests.scheduler.objects import node, pod


def cluster(nodes: list[Obj], pods: list[Obj] = []) -> Snapshot:  # noqa: B006 - never changed
    snapshot = Snapshot()
    for one in nodes:
        snapshot.put_node(one)
    for one in pods:
        snapshot.put_pod(pod_info(one))
    return snapshot


def place(new: Obj, nodes: list[Obj], pods: list[Obj] = [], seed: int = 0) -> Decision:  # noqa: B006
    return choose_for(pod_info(new), cluster(nodes, pods), random.Random(seed))


def choose_for(info: PodInfo, snapshot: Snapshot, rng: random.Random, start: int = 0) -> Decision:
    return decide(info, snapshot, start, rng, default_profile(Handle(snapshot)))


TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}
NEEDS_SSD: dict[str, Any] = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
            ]
        }
    }
}


def away_from(app: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def close_to(app: str, key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


WEB = {"app": "web"}
SPREAD = [
    {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": WEB},
    }
]
CASES: list[tuple[str, Obj, list[Obj], list[Obj], str]] = [
    ("fits", pod("p", "1", "1Gi"), [node("a")], [], "a"),
    ("no nodes", pod("p"), [], [], "no nodes available to schedule pods"),
    (
        "cpu",
        pod("p", "5"),
        [node("a")],
        [],
        "0/1 nodes are available: 1 Insufficient cpu.",
    ),
    (
        "cpu taken",
        pod("p", "2"),
        [node("a"), node("b", "1")],
        [pod("q", "3", on="a")],
        "0/2 nodes are available: 2 Insufficient cpu.",
    ),
    (
        "several",
        pod("p", "2", "9Gi"),
        [node("a", "1"), node("b"), node("c", taints=[TAINT])],
        [],
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), "
        "2 Insufficient memory.",
    ),
    (
        "extended resource",
        pod("p", requests={"example.com/gpu": "2"}),
        [node("a", more={"example.com/gpu": "1"})],
        [],
        "0/1 nodes are available: 1 Insufficient example.com/gpu.",
    ),
    (
        "pods",
        pod("p"),
        [node("a", pods="1")],
        [pod("q", on="a")],
        "0/1 nodes are available: 1 Too many pods.",
    ),
    (
        "cordoned",
        pod("p"),
        [node("a", unschedulable=True)],
        [],
        "0/1 nodes are available: 1 node(s) were unschedulable.",
    ),
    (
        "tolerated",
        pod("p", tolerations=[{"operator": "Exists"}]),
        [node("a", taints=[TAINT])],
        [],
        "a",
    ),
    (
        "selector",
        pod("p", nodeSelector={"disk": "ssd"}),
        [node("a")],
        [],
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    ),
    (
        "affinity",
        pod("p", affinity=NEEDS_SSD),
        [node("a"), node("b", labels={"disk": "ssd"})],
        [],
        "b",
    ),
    (
        "port",
        pod("p", port=80),
        [node("a")],
        [pod("q", port=80, on="a")],
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.",
    ),
    (
        "anti-affinity",
        pod("p", affinity=away_from("web")),
        [node("a"), node("b")],
        [pod("q", on="a", labels=WEB)],
        "b",
    ),
    (
        "anti-affinity of those there",
        pod("p", labels=WEB),
        [node("a")],
        [pod("q", on="a", affinity=away_from("web"))],
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.",
    ),
    (
        "pod affinity",
        pod("p", affinity=close_to("web")),
        [node("a"), node("b")],
        [pod("q", on="b", labels=WEB)],
        "b",
    ),
    (
        "no company",
        pod("p", affinity=close_to("web")),
        [node("a")],
        [],
        "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.",
    ),
    ("first of its kind", pod("p", affinity=close_to("web"), labels=WEB), [node("a")], [], "a"),
    (
        "spread",
        pod("p", labels=WEB, topologySpreadConstraints=SPREAD),
        [node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"})],
        [pod("q", on="a", labels=WEB)],
        "b",
    ),
    (
        "spread without the label",
        pod("p", labels=WEB, topologySpreadConstraints=SPREAD),
        [node("a")],
        [],
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints "
        "(missing required label).",
    ),
]


@pytest.mark.parametrize(
    ("new", "nodes", "pods", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_where_a_pod_goes_or_why_it_does_not(
    new: Obj, nodes: list[Obj], pods: list[Obj], expected: str
) -> None:
    decision = place(new, nodes, pods)
    assert (decision.node or decision.message) == expected


def test_emptier_nodes_are_better() -> None:
    nodes = [node("a"), node("b"), node("c")]
    pods = [pod("x", "3", "6Gi", on="a"), pod("y", "1", "2Gi", on="b")]
    assert place(pod("p", "500m", "1Gi"), nodes, pods).node == "c"


def test_pods_of_one_controller_are_spread() -> None:
    snapshot = cluster([node(n) for n in "abcd"])
    rng = random.Random(1)
    for i in range(8):
        info = pod_info(pod(f"p{i}", "100m", owner="rs"))
        snapshot.assume(info, choose_for(info, snapshot, rng).node)
    assert [len(n.pods) for n in snapshot.nodes] == [2, 2, 2, 2]


def test_preferred_affinity_and_soft_taints_count() -> None:
    wish = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 50,
                    "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
                }
            ]
        }
    }
    nodes = [node("a"), node("b", labels={"disk": "ssd"})]
    assert place(pod("p", affinity=wish), nodes).node == "b"
    soft = [{"key": "k", "effect": "PreferNoSchedule"}]
    assert place(pod("p"), [node("a", taints=soft), node("b")]).node == "b"


def test_what_a_pod_requests() -> None:
    spec: Obj = {
        "containers": [
            {"resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}},
            {"resources": {"requests": {"cpu": "1"}}},
        ],
        "initContainers": [
            {"resources": {"requests": {"cpu": "200m"}}, "restartPolicy": "Always"},
            {"resources": {"requests": {"cpu": "3"}}},
        ],
        "overhead": {"cpu": "10m"},
    }
    assert pod_requests(spec) == {"cpu": 3210, "memory": 2**30}


def test_in_a_large_cluster_enough_nodes_are_enough() -> None:
    assert [nodes_to_find(n) for n in (1, 99, 100, 250, 1000, 5000)] == [1, 99, 100, 120, 420, 500]


def test_preemption_takes_the_least_important_and_no_more_than_needed() -> None:
    nodes = [node("a", "4"), node("b", "4"), node("c", "1")]
    pods = [
        pod("a1", "2", on="a", priority=5),
        pod("a2", "2", on="a", priority=1),
        pod("b1", "4", on="b", priority=4),
    ]
    snapshot = cluster(nodes, pods)
    info = pod_info(pod("p", "2", priority=10))
    decision = choose_for(info, snapshot, random.Random(0))
    found = candidates(
        info, snapshot, decision.resolvable, default_profile(Handle(snapshot)), random.Random(0)
    )
    best = cheapest(found)
    assert best is not None
    assert (best.node, [v.key for v in best.victims]) == ("a", ["n/a2"])
    assert [len(n.pods) for n in snapshot.nodes] == [2, 1, 0]
    weak = pod_info(pod("w", "2", priority=0))
    decision = choose_for(weak, snapshot, random.Random(0))
    assert decision.message == "0/3 nodes are available: 3 Insufficient cpu."
    assert useless_message(snapshot, decision.resolvable) == (
        "0/3 nodes are available: "
        "1 Preemption is not helpful for scheduling, "
        "2 No preemption victims found for incoming pod."
    )


# The dumb twin: counts everything from the objects, for each node, each time.

CPUS = st.sampled_from(["", "100m", "1", "2"])
PORTS = st.sampled_from([0, 0, 0, 80, 81])
ZONES = st.sampled_from(["", "1", "2"])
TOLERATIONS = st.sampled_from([[], [{"key": "k", "operator": "Exists"}]])


def dumb_fits(new: Obj, on: Obj, pods: list[Obj]) -> bool:
    here = [p for p in pods if p["spec"]["nodeName"] == name(on)]
    spec = on["spec"]
    if spec.get("unschedulable") or len(here) >= int(on["status"]["allocatable"]["pods"]):
        return False
    for taint in spec["taints"]:
        if not any(tolerates(t, taint) for t in new["spec"].get("tolerations", [])):
            return False
    for key, value in new["spec"].get("nodeSelector", {}).items():
        if on["metadata"]["labels"].get(key) != value:
            return False

    def cpu(p: Obj) -> int:
        wanted = p["spec"]["containers"][0]["resources"]["requests"].get("cpu", "0")
        return quantity.milli_value(wanted)

    def ports(p: Obj) -> set[int]:
        return {q["hostPort"] for q in p["spec"]["containers"][0].get("ports", [])}

    if cpu(new) and sum(map(cpu, here)) + cpu(new) > quantity.milli_value(
        on["status"]["allocatable"]["cpu"]
    ):
        return False
    return not any(ports(new) & ports(p) for p in here)


@st.composite
def nodes_and_pods(draw: st.DrawFn) -> tuple[list[Obj], list[Obj]]:
    nodes = [
        node(
            f"node-{i}",
            draw(st.sampled_from(["1", "2", "4"])),
            pods=draw(st.sampled_from(["1", "3", "110"])),
            labels={"zone": zone} if (zone := draw(ZONES)) else {},
            taints=[TAINT] if draw(st.booleans()) else [],
            unschedulable=draw(st.integers(0, 4)) == 0,
        )
        for i in range(draw(st.integers(1, 5)))
    ]
    pods = [
        pod(
            f"p{i}",
            draw(CPUS),
            port=draw(PORTS),
            tolerations=draw(TOLERATIONS),
            nodeSelector={"zone": zone} if (zone := draw(ZONES)) else {},
        )
        for i in range(draw(st.integers(1, 15)))
    ]
    return nodes, pods


@given(nodes_and_pods(), st.integers(0, 100))
def test_the_decision_agrees_with_the_dumb_twin(
    drawn: tuple[list[Obj], list[Obj]], seed: int
) -> None:
    nodes, pods = drawn
    snapshot = cluster(nodes)
    rng = random.Random(seed)
    bound: list[Obj] = []
    for one in pods:
        info = pod_info(one)
        decision = choose_for(info, snapshot, rng, rng.randrange(9))
        fitting = [name(n) for n in nodes if dumb_fits(one, n, bound)]
        if decision.node:
            assert decision.node in fitting
            one["spec"]["nodeName"] = decision.node
            snapshot.assume(info, decision.node)
            bound.append(one)
        else:
            assert fitting == []
        if bound and rng.random() < 0.3:
            gone = bound.pop(rng.randrange(len(bound)))
            snapshot.remove_pod(gone["metadata"]["uid"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.sampled_from("apfrn"))))
def test_the_sums_of_a_node_are_those_of_its_pods(steps: list[tuple[int, int, str]]) -> None:
    snapshot = cluster([node(f"node-{i}") for i in range(3)])
    infos = {i: pod_info(pod(f"p{i}", f"{i}00m", port=i, owner=f"o{i % 2}")) for i in range(6)}
    for i, where, step in steps:
        info = infos[i]
        known = snapshot.pod(info.uid)
        match step:
            case "a" if known is None:
                snapshot.assume(info, f"node-{where}")
            case "p":
                snapshot.put_pod(pod_info(pod(f"p{i}", f"{i}00m", on=f"node-{where}", port=i)))
            case "f":
                snapshot.forget(info)
            case "r":
                snapshot.remove_pod(info.uid)
            case "n":
                snapshot.remove_node(f"node-{where}")
                snapshot.put_node(node(f"node-{where}"))
        for one in snapshot.nodes:
            pods = [*one.pods.values()]
            assert one.requested.get("cpu", 0) == sum(p.requests.get("cpu", 0) for p in pods)
            assert one.score_cpu == sum(p.score_cpu for p in pods)
            assert sum(one.ports.values()) == sum(len(p.ports) for p in pods)


def test_large_images_that_are_there_count() -> None:
    with_image = node("b")
    with_image["status"]["images"] = [{"names": ["i:latest"], "sizeBytes": 900 * 2**20}]
    snapshot = cluster([node("a"), with_image])
    decision = choose_for(pod_info(pod("p", "1")), snapshot, random.Random(1))
    assert decision.node == "b"
