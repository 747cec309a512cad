"""What is remembered between decisions never shows: a dumb twin of affinity and spreading, which
looks at every pod on every node each time, over random clusters that change."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from k8slite.api.meta import Obj, labels, name, namespace, uid
from k8slite.scheduler.config import default_profile
from k8slite.scheduler.decide import decide
from k8slite.scheduler.framework import Handle
from k8slite.scheduler.memo import LOG_MAX
from k8slite.scheduler.plugins.pod_affinity import PodAffinity
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.terms import PREFERRED, REQUIRED
from tests.scheduler.objects import node, pod

ZONE, HOST = "zone", "kubernetes.io/hostname"
SPACES = {"n": {"team": "a"}, "m": {"team": "b"}}
APPS = ("x", "y")


def term(app: str, key: str, where: Obj) -> Obj:
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}, **where}


TERMS = st.builds(
    term,
    st.sampled_from(APPS),
    st.sampled_from([ZONE, HOST]),
    st.sampled_from(
        [
            {},
            {"namespaces": ["m"]},
            {"namespaceSelector": {}},
            {"namespaceSelector": {"matchLabels": {"team": "b"}}},
        ]
    ),
)
SPREAD = "topologySpreadConstraints"
SIDES = st.sampled_from(["podAffinity", "podAntiAffinity"])


VERSIONS = st.sampled_from(["1", "2"])
TAINT = {"key": "k", "value": "v", "effect": "NoSchedule"}


@st.composite
def rules(draw: st.DrawFn, app: str, key: str) -> Obj:
    """A hard spread constraint with some of its fields."""
    rule: Obj = {
        "maxSkew": draw(st.integers(1, 2)),
        "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
    }
    if draw(st.booleans()):
        rule["minDomains"] = draw(st.integers(1, 3))
    for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        if draw(st.booleans()):
            rule[policy] = draw(st.sampled_from(["Honor", "Ignore"]))
    if draw(st.booleans()):
        rule["matchLabelKeys"] = ["version"]
    return rule


@st.composite
def some_pods(draw: st.DrawFn) -> list[Obj]:
    pods = []
    for i in range(draw(st.integers(1, 12))):
        app = draw(st.sampled_from(APPS))
        spec: Obj = {}
        kind = draw(st.integers(0, 3))
        if kind == 1:
            terms = draw(st.lists(TERMS, min_size=1, max_size=2))
            spec["affinity"] = {draw(SIDES): {REQUIRED: terms}}
        elif kind == 2:
            weighted = {"weight": draw(st.integers(1, 100)), "podAffinityTerm": draw(TERMS)}
            spec["affinity"] = {draw(SIDES): {PREFERRED: [weighted]}}
        elif kind == 3:
            keys = draw(st.lists(st.sampled_from([ZONE, HOST]), min_size=1, unique=True))
            spec[SPREAD] = [draw(rules(app, key)) for key in keys]
            if draw(st.booleans()):
                spec["nodeSelector"] = {"disk": "ssd"}
        one = pod(f"p{i}", labels={"app": app, "version": draw(VERSIONS)}, **spec)
        if draw(st.integers(0, 5)) == 0:
            one["metadata"]["deletionTimestamp"] = "2023-01-01T00:00:00Z"
        one["metadata"]["namespace"] = draw(st.sampled_from(sorted(SPACES)))
        pods.append(one)
    return pods


class Twin:
    """All nodes, all pods on them; nothing is remembered."""

    def __init__(self) -> None:
        self.nodes: dict[str, Obj] = {}
        self.bound: list[tuple[Obj, str]] = []

    def place(self, where: str, key: str) -> str | None:
        found: str | None = labels(self.nodes[where]).get(key)
        return found

    def finds(self, wanted: Obj, owner: Obj, other: Obj) -> bool:
        spaces = wanted.get("namespaces") or []
        selector = wanted.get("namespaceSelector")
        near = namespace(other) in spaces
        if selector is not None:
            have = SPACES[namespace(other)]
            near = near or (selector.get("matchLabels") or {}).items() <= have.items()
        elif not spaces:
            near = namespace(other) == namespace(owner)
        return near and wanted["labelSelector"]["matchLabels"].items() <= labels(other).items()

    def here(self, wanted: Obj, owner: Obj, place: str | None) -> int:
        """Pods in a place that the term finds."""
        return sum(
            self.finds(wanted, owner, other)
            for other, where in self.bound
            if where in self.nodes
            and place is not None
            and self.place(where, wanted["topologyKey"]) == place
        )

    def is_tainted(self, where: str) -> bool:
        return bool(self.nodes[where]["spec"]["taints"])

    def suits(self, new: Obj, where: str) -> bool:
        """As far as its node selector goes."""
        return (new["spec"].get("nodeSelector") or {}).items() <= labels(self.nodes[where]).items()

    def company(self, wanted: list[Obj], owner: Obj, key: str, place: str | None) -> int:
        """Pods that all terms find, in a place or (None) wherever there is a place."""
        return sum(
            all(self.finds(t, owner, other) for t in wanted)
            for other, where in self.bound
            if where in self.nodes
            and self.place(where, key) is not None
            and place in (None, self.place(where, key))
        )

    def fits(self, new: Obj, where: str) -> bool:
        if self.is_tainted(where) or not self.suits(new, where):
            return False
        affinity = new["spec"].get("affinity") or {}
        wanted = (affinity.get("podAffinity") or {}).get(REQUIRED) or []
        somewhere = any(self.company(wanted, new, t["topologyKey"], None) for t in wanted)
        first = not somewhere and all(self.finds(t, new, new) for t in wanted)
        for one in wanted:
            key = one["topologyKey"]
            place = self.place(where, key)
            if place is None or (not self.company(wanted, new, key, place) and not first):
                return False
        for one in (affinity.get("podAntiAffinity") or {}).get(REQUIRED) or []:
            if self.here(one, new, self.place(where, one["topologyKey"])):
                return False
        for other, there in self.bound:
            rules = (other["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
            for one in rules.get(REQUIRED) or []:
                place = self.place(where, one["topologyKey"])
                same = there in self.nodes and self.place(there, one["topologyKey"]) == place
                if place is not None and same and self.finds(one, other, new):
                    return False
        return all(self.even(c, new, where) for c in new["spec"].get(SPREAD, []))

    def even(self, rule: Obj, new: Obj, where: str) -> bool:
        key = rule["topologyKey"]
        place = self.place(where, key)
        if place is None:
            return False
        matched = dict(rule["labelSelector"]["matchLabels"])
        for each in rule.get("matchLabelKeys", ()):
            matched[each] = labels(new)[each]
        own = {"namespaces": [namespace(new)], "labelSelector": {"matchLabels": matched}}
        counted = [
            n
            for n in self.nodes
            if all(self.place(n, r["topologyKey"]) for r in new["spec"][SPREAD])
            and (rule.get("nodeAffinityPolicy") == "Ignore" or self.suits(new, n))
            and (rule.get("nodeTaintsPolicy") != "Honor" or not self.is_tainted(n))
        ]
        counts: dict[str | None, int] = {self.place(n, key): 0 for n in counted}
        for other, there in self.bound:
            living = "deletionTimestamp" not in other["metadata"]
            if there in counted and living and self.finds(own, new, other):
                counts[self.place(there, key)] += 1
        least = min(counts.values(), default=0)
        if len(counts) < rule.get("minDomains", 1):
            least = 0
        itself = "deletionTimestamp" not in new["metadata"] and self.finds(own, new, new)
        after = counts.get(place, 0) + itself - least
        return bool(after <= rule["maxSkew"])

    def liking(self, new: Obj, where: str) -> int:
        """What preferences of the pod, and of those that are there, say of a node."""
        total = 0
        for side, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            rules = (new["spec"].get("affinity") or {}).get(side) or {}
            for weighted in rules.get(PREFERRED) or []:
                one = weighted["podAffinityTerm"]
                place = self.place(where, one["topologyKey"])
                total += sign * weighted["weight"] * self.here(one, new, place)
            for other, there in self.bound:
                if there not in self.nodes:
                    continue
                rules = (other["spec"].get("affinity") or {}).get(side) or {}
                terms = [
                    (t["podAffinityTerm"], sign * t["weight"]) for t in rules.get(PREFERRED, [])
                ]
                if sign == 1:
                    terms += [(t, 1) for t in rules.get(REQUIRED) or []]
                for one, weight in terms:
                    place = self.place(where, one["topologyKey"])
                    same = place is not None and self.place(there, one["topologyKey"]) == place
                    total += weight * (same and self.finds(one, other, new))
        return total


def liking(info: PodInfo, snapshot: Snapshot, where: str) -> int:
    plugin = PodAffinity({}, Handle(snapshot))
    state: Any = plugin.pre_score(info, snapshot, snapshot.nodes)
    found = snapshot.node(where)
    assert found is not None
    return plugin.score(state, info, found) if isinstance(state, list) else 0


@settings(max_examples=150)
@given(some_pods(), st.integers(0, 10_000))
def test_what_is_remembered_never_shows(pods: list[Obj], seed: int) -> None:
    rng = random.Random(seed)
    snapshot, twin = Snapshot(), Twin()
    profile = default_profile(Handle(snapshot))
    for space, own in SPACES.items():
        snapshot.counters.set_space(space, own)

    def put_node(number: int) -> None:
        own = {**rng.choice([{}, {ZONE: "a"}, {ZONE: "b"}]), **rng.choice([{}, {"disk": "ssd"}])}
        taints = [TAINT] if rng.random() < 0.15 else []
        obj = node(f"node-{number}", "64", labels=own, taints=taints)
        snapshot.put_node(obj)
        twin.nodes[name(obj)] = obj

    for number in range(rng.randrange(1, 5)):
        put_node(number)
    for one in pods:
        info = pod_info(one)
        decision = decide(info, snapshot, rng.randrange(9), rng, profile)
        fitting = [n for n in twin.nodes if twin.fits(one, n)]
        for where in twin.nodes:
            assert liking(info, snapshot, where) == twin.liking(one, where)
        if decision.node:
            assert decision.node in fitting
            snapshot.assume(info, decision.node)
            twin.bound.append((one, decision.node))
        else:
            assert fitting == []
        dice = rng.random()
        if dice < 0.2 and twin.bound:
            gone, _ = twin.bound.pop(rng.randrange(len(twin.bound)))
            snapshot.remove_pod(uid(gone))
        elif dice < 0.3:
            put_node(rng.randrange(5))
        elif dice < 0.4 and len(twin.nodes) > 1:
            away = rng.choice(sorted(twin.nodes))
            snapshot.remove_node(away)
            del twin.nodes[away]


def test_equal_pods_share_a_shape() -> None:
    one, same = pod_info(pod("a", "1")), pod_info(pod("b", "1", labels={"app": "x"}))
    assert one.shape == same.shape
    assert one.shape != pod_info(pod("c", "2")).shape
    assert one.shape != pod_info(pod("d", "1", nodeSelector={"disk": "ssd"})).shape


def test_a_memo_that_is_far_behind_is_made_anew() -> None:
    """What is remembered agrees with looking afresh, however much has changed meanwhile."""
    snapshot = Snapshot()
    for number in range(3):
        snapshot.put_node(node(f"node-{number}", "4"))
    profile = default_profile(Handle(snapshot))
    info = pod_info(pod("p", "3"))
    rng = random.Random(0)
    assert decide(info, snapshot, 0, rng, profile).node
    big = pod_info(pod("big", "2"))
    for _ in range(LOG_MAX):
        snapshot.assume(big, "node-1")
        snapshot.forget(big)
    for number in range(3):
        snapshot.assume(pod_info(pod(f"q{number}", "2")), f"node-{number}")
    refused = decide(info, snapshot, 0, rng, profile)
    assert refused.message == "0/3 nodes are available: 3 Insufficient cpu."
    snapshot.remove_pod("uid-of-q2")
    assert decide(info, snapshot, 1, rng, profile).node == "node-2"
    snapshot.remove_node("node-2")
    snapshot.put_node(node("node-3", "4"))
    assert decide(info, snapshot, 2, rng, profile).node == "node-3"
