"""IPVS: what is to be there, and the steps to it. `test_kernel.py` has the rest, in a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.cli.main import main
from k8slite.proxy.ipvs_plan import IpvsPlan, Server, VirtualServer, make_plan, set_changes
from k8slite.proxy.ipvs_steps import (
    AddDestination,
    AddServer,
    DeleteDestination,
    DeleteServer,
    Live,
    SetServer,
    SetWeight,
    apply,
    drained,
    draining,
    intact,
    steps,
)
from k8slite.proxy.table import build_table
from tests.proxy.objects import endpoint, endpoint_slice, service

WEB = "10.96.0.10"
NODE = "10.89.0.11"
BALANCER = "192.0.2.9"
BOTH = [endpoint_slice(endpoint("10.244.1.2"), endpoint("10.244.1.3"))]
FAR = [endpoint_slice(endpoint("10.244.2.2", "node-2"))]
NODE_PORT = [{"name": "http", "port": 80, "nodePort": 30080}]
ONE, TWO = ("10.244.1.2", 8080), ("10.244.1.3", 8080)


def balanced(**spec: Any) -> Any:
    web = service(type="LoadBalancer", ports=NODE_PORT, **spec)
    web["status"] = {"loadBalancer": {"ingress": [{"ip": BALANCER}]}}
    return web


def plan_of(web: Any, slices: Any = BOTH) -> IpvsPlan:
    return make_plan(build_table([web], slices, "node-1"), [NODE])


def filled(plan: IpvsPlan) -> dict[str, list[str]]:
    return {name: [*elements] for name, elements in plan.sets.items() if elements}


def test_addresses_and_sets() -> None:
    plan = plan_of(balanced(loadBalancerSourceRanges=["198.51.100.0/24"]))
    assert plan.servers == {
        VirtualServer("TCP", WEB, 80): Server(0, (ONE, TWO)),
        VirtualServer("TCP", BALANCER, 80): Server(0, (ONE, TWO)),
        VirtualServer("TCP", NODE, 30080): Server(0, (ONE, TWO)),
    }
    assert [*plan.addresses] == [WEB, BALANCER]
    assert filled(plan) == {
        "KUBE-CLUSTER-IP": [f"{WEB} . tcp . 80"],
        "KUBE-EXTERNAL-IP": [f"{BALANCER} . tcp . 80"],
        "KUBE-NODE-PORT": ["tcp . 30080"],
        "KUBE-LOOP-BACK": [
            "10.244.1.2 . tcp . 8080 . 10.244.1.2",
            "10.244.1.3 . tcp . 8080 . 10.244.1.3",
        ],
        "KUBE-FIREWALL": [f"{BALANCER} . tcp . 80"],
        "KUBE-SOURCES": [f"{BALANCER} . tcp . 80 . 198.51.100.0/24"],
        "KUBE-IPVS-IPS": [WEB, BALANCER],
    }


def test_policy_local_keeps_the_clients_address() -> None:
    plan = plan_of(balanced(externalTrafficPolicy="Local"))
    assert plan.servers[VirtualServer("TCP", BALANCER, 80)].endpoints == (ONE, TWO)
    sets = filled(plan)
    assert sets["KUBE-EXTERNAL-IP-LOCAL"] == [f"{BALANCER} . tcp . 80"]
    assert sets["KUBE-NODE-PORT-LOCAL"] == ["tcp . 30080"]
    assert sets.keys().isdisjoint({"KUBE-EXTERNAL-IP", "KUBE-NODE-PORT", "KUBE-ELSEWHERE"})


def test_policy_local_without_endpoints_here() -> None:
    """Pods and the node are led to other nodes, all others are dropped."""
    plan = plan_of(balanced(externalTrafficPolicy="Local"), FAR)
    far = (("10.244.2.2", 8080),)
    assert {server.endpoints for server in plan.servers.values()} == {far}
    assert filled(plan)["KUBE-ELSEWHERE"] == [f"{BALANCER} . tcp . 80", f"{NODE} . tcp . 30080"]
    inner = plan_of(service(internalTrafficPolicy="Local"), FAR)
    assert inner.servers == {VirtualServer("TCP", WEB, 80): Server(0, ())}
    assert "KUBE-ELSEWHERE" not in filled(plan_of(balanced(externalTrafficPolicy="Local"), []))


def test_affinity_and_the_nodes_own_address() -> None:
    plan = plan_of(service(sessionAffinity="ClientIP", externalIPs=[NODE]))
    assert {server.persistence for server in plan.servers.values()} == {10800}
    assert [*plan.addresses] == [WEB], "it is on the node's link"


def test_only_changed_elements_are_written() -> None:
    old, new = plan_of(service()), plan_of(service(), FAR)
    assert set_changes(new, new) == ""
    text = set_changes(old, new)
    assert text.splitlines() == [
        "delete element ip k8slite-ipvs KUBE-LOOP-BACK "
        "{ 10.244.1.2 . tcp . 8080 . 10.244.1.2, 10.244.1.3 . tcp . 8080 . 10.244.1.3 }",
        "add element ip k8slite-ipvs KUBE-LOOP-BACK { 10.244.2.2 . tcp . 8080 . 10.244.2.2 }",
    ]


TCP, UDP, OLD = (VirtualServer(name, WEB, 80) for name in ("TCP", "UDP", "SCTP"))


def test_steps_in_order() -> None:
    there = {
        TCP: Live("rr", 0, {ONE: 1, TWO: 0, ("10.244.1.4", 8080): 1}),
        UDP: Live("wlc", 0, {ONE: 1}),
        OLD: Live("rr", 0, {ONE: 1}),
    }
    new = VirtualServer("TCP", BALANCER, 80)
    wanted = {TCP: Server(0, (TWO,)), UDP: Server(60, ()), new: Server(60, (ONE,))}
    assert list(steps(there, wanted, "rr")) == [
        SetWeight(TCP, TWO, 1),
        SetWeight(TCP, ONE, 0),
        SetWeight(TCP, ("10.244.1.4", 8080), 0),
        SetServer(UDP, "rr", 60),
        DeleteDestination(UDP, ONE),
        AddServer(new, "rr", 60),
        AddDestination(new, ONE, 1),
        DeleteServer(OLD),
    ]


def test_draining_ends_with_the_last_connection() -> None:
    there = {TCP: Live("rr", 0, {ONE: 0, TWO: 0}), UDP: Live("rr", 0, {ONE: 1})}
    leaving = draining(there)
    assert leaving == {TCP: [ONE, TWO]}
    assert list(drained(leaving, {(TCP, ONE): 2, (TCP, TWO): 0})) == [DeleteDestination(TCP, TWO)]


ENDS = st.sampled_from([("10.244.1.2", port) for port in range(4)])
WHERES = st.sampled_from([TCP, UDP, OLD, VirtualServer("TCP", BALANCER, 80)])
LIVE = st.builds(
    Live,
    st.sampled_from(["rr", "lc"]),
    st.sampled_from([0, 60]),
    st.dictionaries(ENDS, st.integers(0, 2)),
)
WANTED = st.builds(Server, st.sampled_from([0, 60]), st.lists(ENDS, unique=True).map(tuple))


@given(st.dictionaries(WHERES, LIVE), st.dictionaries(WHERES, WANTED))
def test_steps_lead_there(there: dict[VirtualServer, Live], wanted: dict[Any, Server]) -> None:
    """Each step applies to what the steps before it left, and nothing is left to do."""
    for step in list(steps(there, wanted, "rr")):
        if isinstance(step, AddServer):
            assert step.where not in there
        if isinstance(step, AddDestination):
            assert step.end not in there[step.where].weights
        apply(there, step)
    assert list(steps(there, wanted, "rr")) == []
    assert there.keys() == wanted.keys()
    for where, server in wanted.items():
        assert {end for end, weight in there[where].weights.items() if weight} == {
            *server.endpoints
        }
    for step in list(drained(draining(there), {})):
        apply(there, step)
    assert {where: set(live.weights) for where, live in there.items()} == {
        where: set(server.endpoints) for where, server in wanted.items()
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Live("rr", 0, {ONE: 1, TWO: 0}), True),
        (Live("rr", 0, {ONE: 1}), True),
        (Live("rr", 0, {ONE: 0, TWO: 0}), False),
        (Live("lc", 0, {ONE: 1}), False),
    ],
)
def test_what_others_changed_is_seen(change: Live, expected: bool) -> None:
    known = {TCP: Live("rr", 0, {ONE: 1, TWO: 0})}
    assert intact({TCP: change}, known) is expected
    assert not intact({}, known)


@pytest.mark.root
@pytest.mark.tool("nft")
def test_a_kernel_without_it_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    from k8slite.cluster.machine import why_no_ipvs

    reason = why_no_ipvs("rr")
    if not Path("/proc/net/ip_vs").exists():
        assert reason == "the kernel has no IPVS (module ip_vs)"
        assert main(["up", "--name", "no-ipvs", "--proxy", "ipvs"]) == 1
        said = capsys.readouterr().err
        assert f"--proxy ipvs cannot be had here: {reason}" in said
    else:
        assert reason == ""
        assert why_no_ipvs("nosuch").startswith("the kernel has no scheduler nosuch")
