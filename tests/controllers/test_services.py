"""Endpoints and EndpointSlices follow the pods behind a Service."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from k8slite.api import meta
from k8slite.api.kinds import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from k8slite.api.meta import Obj, name
from k8slite.controllers.actions import Action, Create, Delete, Update
from k8slite.controllers.services import endpoints, endpointslice
from tests.controllers.objects import pod, service
from tests.controllers.world import open_cluster

NOW = 1_700_000_000.0


def slice_plan(pods: list[Obj], slices: list[Obj], **spec: Any) -> list[Action]:
    return endpointslice.plan(service(**spec), pods, slices, NOW)


def created(actions: list[Action]) -> Obj:
    [action] = actions
    assert isinstance(action, Create)
    return action.obj


def test_a_slice_has_the_fields_of_kubernetes() -> None:
    obj = created(slice_plan([pod("a", ip="10.0.0.1")], []))
    assert obj["metadata"]["generateName"] == "web-"
    assert obj["metadata"]["labels"] == {
        "team": "a",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert obj["metadata"]["ownerReferences"][0]["kind"] == "Service"
    assert obj["addressType"] == "IPv4"
    assert obj["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert obj["endpoints"] == [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "n", "name": "a", "uid": "uid-of-a"},
            "nodeName": "node-1",
        }
    ]


@pytest.mark.parametrize(
    ("ready", "terminating", "publish", "expected"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, False, True, (True, False, False)),
    ],
)
def test_conditions_of_an_endpoint(
    ready: bool, terminating: bool, publish: bool, expected: tuple[bool, bool, bool]
) -> None:
    one = pod("a", ip="10.0.0.1", ready=ready, terminating=terminating)
    conditions = endpointslice.endpoint_of(service(publishNotReadyAddresses=publish), one)[
        "conditions"
    ]
    assert tuple(conditions.values()) == expected


def test_no_pods_leave_one_empty_slice() -> None:
    empty = created(slice_plan([], []))
    assert empty["endpoints"] == []
    stored = {**empty, "metadata": {**empty["metadata"], "name": "web-1", "uid": "u"}}
    assert slice_plan([], [stored]) == []


def test_named_target_ports_are_looked_up_in_each_pod() -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]
    one, two = pod("a", ip="10.0.0.1"), pod("b", ip="10.0.0.2")
    one["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 1}]
    two["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 2}]
    actions = slice_plan([one, two], [], ports=ports)
    numbers = [a.obj["ports"][0]["port"] for a in actions if isinstance(a, Create)]
    assert numbers == [1, 2]
    [subset_1, subset_2] = endpoints.subsets_of(service(ports=ports), [one, two])[0]
    assert (subset_1["ports"][0]["port"], subset_2["ports"][0]["port"]) == (1, 2)


class Slices:
    """Applies plans to a list of slices, as an apiserver would."""

    def __init__(self) -> None:
        self.slices: list[Obj] = []
        self.writes = 0
        self._names = 0

    def apply(self, actions: list[Action]) -> None:
        for action in actions:
            self.writes += 1
            match action:
                case Create(_, obj):
                    self._names += 1
                    own = f"web-{self._names}"
                    metadata = {**obj["metadata"], "name": own, "uid": own}
                    self.slices.append({**obj, "metadata": metadata})
                case Update(_, obj):
                    self.slices = [obj if name(o) == name(obj) else o for o in self.slices]
                case Delete():
                    self.slices = [o for o in self.slices if name(o) != action.name]


@settings(max_examples=30)
@given(st.lists(st.sets(st.integers(0, 260), max_size=260), min_size=1, max_size=5))
def test_slices_hold_each_pod_once_and_are_never_too_full(steps: list[set[int]]) -> None:
    state = Slices()
    for step in steps:
        pods = [pod(f"p{i}", ip=f"10.0.{i // 250}.{i % 250}") for i in sorted(step)]
        state.apply(slice_plan(pods, state.slices))
        held = [e["targetRef"]["name"] for o in state.slices for e in o["endpoints"]]
        assert sorted(held) == sorted(f"p{i}" for i in step)
        assert all(len(o["endpoints"]) <= 100 for o in state.slices)
        assert len(state.slices) >= 1
        assert slice_plan(pods, state.slices) == [], "a second pass finds nothing to do"


def test_a_change_of_one_pod_writes_one_slice() -> None:
    state = Slices()
    pods = [pod(f"p{i}", ip=f"10.0.{i // 250}.{i % 250}") for i in range(250)]
    state.apply(slice_plan(pods, []))
    assert len(state.slices) == 3
    state.writes = 0
    pods[120] = pod("p120", ip="10.0.0.120", ready=False)
    state.apply(slice_plan(pods, state.slices))
    assert state.writes == 1


def test_endpoints_have_ready_and_not_ready_addresses_apart() -> None:
    pods = [
        pod("a", ip="10.0.0.2"),
        pod("b", ip="10.0.0.1", ready=False),
        pod("c", ip="10.0.0.3", terminating=True),
        pod("d", ip="10.0.0.4", phase="Succeeded"),
        pod("e"),
    ]
    obj = created(endpoints.plan(service(), pods, None, NOW))
    [subset] = obj["subsets"]
    assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.2"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.0.0.1"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP", "name": "http"}]


def test_a_service_without_a_selector_is_left_alone() -> None:
    assert endpoints.plan(service(selector=None), [], None, NOW) == []


@pytest.mark.parametrize("seed", range(3))
async def test_both_follow_the_pods_over_lost_watches(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    rng = random.Random(seed)
    kinds = ("endpoints-controller", "endpointslice-controller")
    async with open_cluster(*kinds, seed=seed, pods=False) as cluster:
        api = cluster.api
        api.add(SERVICES, service())
        for i in range(40):
            target = f"p{rng.randrange(8)}"
            if f"n/{target}" in api.objects.get(PODS, {}):
                api.remove(PODS, f"n/{target}")
            else:
                api.add(PODS, pod(target, ip=f"10.0.0.{i}", ready=rng.random() < 0.7))
            if rng.random() < 0.3:
                api.break_watches(compact=rng.random() < 0.5)
            await trio.sleep(rng.random())
        await trio.sleep(30)
        ready = sorted(p["status"]["podIP"] for p in api.all(PODS) if meta.condition_is(p, "Ready"))
        stored = api.read(ENDPOINTS, "n/web")
        shown = [a["ip"] for s in stored["subsets"] for a in s.get("addresses", ())]
        assert sorted(shown) == ready
        in_slices = [
            e["addresses"][0]
            for o in api.all(ENDPOINT_SLICES)
            for e in o["endpoints"]
            if e["conditions"]["ready"]
        ]
        assert sorted(in_slices) == ready
        api.remove(SERVICES, "n/web")
        await trio.sleep(5)
        assert api.all(ENDPOINTS) == []


def dual(own: str, *addresses: str, node_name: str = "node-1") -> Obj:
    one = pod(own, ip=addresses[0], node=node_name)
    one["status"]["podIPs"] = [{"ip": each} for each in addresses]
    return one


def test_each_family_has_slices_of_its_own() -> None:
    both = service(ipFamilies=["IPv6", "IPv4"])
    pods = [dual("a", "10.0.0.1", "fd00::1"), dual("b", "10.0.0.2")]
    actions = endpointslice.plan(both, pods, [], 0.0)
    made = {a.obj["addressType"]: a.obj for a in actions if isinstance(a, Create)}
    assert [e["addresses"] for e in made["IPv6"]["endpoints"]] == [["fd00::1"]]
    assert [e["addresses"] for e in made["IPv4"]["endpoints"]] == [["10.0.0.1"], ["10.0.0.2"]]
    slices = [{**o, "metadata": {**o["metadata"], "name": f"s-{t}"}} for t, o in made.items()]
    assert endpointslice.plan(both, pods, slices, 9.0) == []
    only = service(ipFamilies=["IPv4"])
    [gone] = endpointslice.plan(only, pods, slices, 9.0)
    assert isinstance(gone, Delete)
    assert gone.name == "s-IPv6"


def test_endpoints_say_where_they_are_and_for_whom() -> None:
    zones = {"a": "z1", "b": "z2"}
    near = service(trafficDistribution="PreferSameNode")
    pods = [dual("p", "10.0.0.1", node_name="a"), dual("q", "10.0.0.2", node_name="b")]
    pods.append(pod("r", ip="10.0.0.3", ready=False, node="a"))
    [made] = endpointslice.plan(near, pods, [], 0.0, lambda own: zones.get(own, ""))
    assert isinstance(made, Create)
    first, second, unready = made.obj["endpoints"]
    assert (first["zone"], second["zone"]) == ("z1", "z2")
    assert first["hints"] == {"forZones": [{"name": "z1"}], "forNodes": [{"name": "a"}]}
    assert "hints" not in unready
    same_zone = service(trafficDistribution="PreferClose")
    [made] = endpointslice.plan(same_zone, pods[:1], [], 0.0, lambda own: zones.get(own, ""))
    assert isinstance(made, Create)
    assert made.obj["endpoints"][0]["hints"] == {"forZones": [{"name": "z1"}]}
    [made] = endpointslice.plan(service(), pods[:1], [], 0.0)
    assert isinstance(made, Create)
    assert "zone" not in made.obj["endpoints"][0]
