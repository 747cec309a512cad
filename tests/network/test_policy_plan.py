"""Plans and rules of network policies, beside a plain reading of what policies mean."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from k8slite.network.policy.plan import Allowed, Peers, Plan, make_plan, view_of_pod
from k8slite.network.policy.rules import Ruleset, changes, make_rules
from tests.network.policies import World, match, namespace, of_namespace, pod, policy

HTTP = [{"name": "http", "containerPort": 8080}]
ODD = [{"name": "http", "containerPort": 9090}]
PODS = [
    pod("web", "a", "10.244.1.2", "node-1", ports=HTTP),
    pod("db", "a", "10.244.1.3", "node-1", ports=ODD),
    pod("web", "b", "10.244.2.2", "node-2"),
    pod("db", "b", "10.244.2.3", "node-2", ports=HTTP),
]
NAMESPACES = [namespace("a"), namespace("b")]
OUTSIDE = "192.0.2.7"
ADDRESSES = [*(each["status"]["podIP"] for each in PODS), OUTSIDE]
PORTS = (80, 8080, 9090)


def plan_for(policies: list[dict[str, Any]], node: str) -> Plan:
    views = [view for view in map(view_of_pod, PODS) if view is not None]
    return make_plan(policies, views, NAMESPACES, node)


def passes(plans: dict[str, Plan], source: str, target: str, port: int, protocol: str) -> bool:
    """As the kernel goes through the rules of the source's node, then the target's."""

    def allowed(rules: tuple[Allowed, ...] | None, peer: str) -> bool:
        return rules is None or any(
            any(is_peer(each, peer) for each in rule.peers)
            and (
                rule.ports is None
                or any(
                    each.protocol == protocol
                    and (
                        (target, port) in each.named
                        if each.name
                        else not each.ranges or any(a <= port <= b for a, b in each.ranges)
                    )
                    for each in rule.ports
                )
            )
            for rule in rules
        )

    nodes = {each["status"]["podIP"]: each["spec"]["nodeName"] for each in PODS}
    near, far = nodes.get(source), nodes.get(target)
    return (near is None or allowed(plans[near].egress.get(source), target)) and (
        far is None or allowed(plans[far].ingress.get(target), source)
    )


def is_peer(peer: Peers, ip: str) -> bool:
    if peer.cidr:
        address = ipaddress.ip_address(ip)
        return address in ipaddress.ip_network(peer.cidr) and not any(
            address in ipaddress.ip_network(each) for each in peer.except_
        )
    return ip in peer.ips if peer.selector else True


selectors = st.sampled_from(
    [
        {},
        match(app="web"),
        match(app="nobody"),
        {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
    ]
)
peers = st.one_of(
    st.builds(lambda s: {"podSelector": s}, selectors),
    st.builds(lambda n: {"namespaceSelector": n}, st.sampled_from([{}, of_namespace("b")])),
    st.builds(
        lambda n, s: {"namespaceSelector": n, "podSelector": s},
        st.sampled_from([{}, of_namespace("b"), of_namespace("none")]),
        selectors,
    ),
    st.sampled_from(
        [
            {"ipBlock": {"cidr": "0.0.0.0/0"}},
            {"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24", "10.244.1.3/32"]}},
            {"ipBlock": {"cidr": "192.0.2.0/24"}},
        ]
    ),
)  # fmt: skip
ports = st.sampled_from(
    [
        {"port": 80},
        {"port": 80, "endPort": 8080},
        {"port": "http"},
        {"port": "nothing"},
        {"protocol": "UDP"},
        {"protocol": "TCP"},
        {"protocol": "UDP", "port": 80},
    ]
)


def rules(ends: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries(
        {}, optional={ends: st.lists(peers, max_size=2), "ports": st.lists(ports, max_size=2)}
    )
    return st.lists(one, max_size=2)


policies_of_all_kinds = st.lists(
    st.builds(
        lambda ns, pods, ingress, egress, types: policy(
            "p", ns, pods, ingress=ingress, egress=egress, types=types
        ),
        st.sampled_from("ab"),
        selectors,
        rules("from"),
        rules("to"),
        st.sampled_from([None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
    ),
    max_size=3,
)


BLOCK_AND_NAME = {"ports": [{"port": "http"}], "to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}


@given(policies_of_all_kinds)
@example([policy(egress=[BLOCK_AND_NAME])])
def test_plans_say_what_policies_mean(policies: list[dict[str, Any]]) -> None:
    world = World(policies, PODS, NAMESPACES)
    plans = {node: plan_for(policies, node) for node in ("node-1", "node-2")}
    for source in ADDRESSES:
        for target in ADDRESSES:
            for port in PORTS:
                for protocol in ("TCP", "UDP"):
                    expected = world.allows(source, target, port, protocol)
                    assert passes(plans, source, target, port, protocol) == expected


@given(st.lists(policies_of_all_kinds, min_size=1, max_size=4))
def test_changes_lead_from_any_rules_to_any_other(steps: list[list[dict[str, Any]]]) -> None:
    """What is left in the end is what would have been written at once."""
    kernel = Kernel()
    old: Ruleset | None = None
    for policies in steps:
        new = make_rules(plan_for(policies, "node-1"))
        kernel.apply(changes(old, new))
        assert changes(new, new) == ""
        old = new
    assert old is not None
    fresh = Kernel()
    fresh.apply(changes(None, old))
    assert kernel == fresh


class Kernel:
    """Just enough of nft to see whether what it is told holds together."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.sets: dict[str, set[str]] = {"egress": set(), "ingress": set()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kernel) and vars(self) == vars(other)

    def apply(self, text: str) -> None:
        for line in text.splitlines():
            words = line.split()
            if words[:2] == ["add", "chain"]:
                assert words[4] not in self.chains
                self.chains[words[4]] = []
            elif words[:2] == ["add", "rule"]:
                for word in words:
                    assert not word.startswith("@") or word[1:] in self.sets
                self.chains[words[4]].append(" ".join(words[5:]))
            elif words[:2] == ["flush", "chain"]:
                self.chains[words[4]] = []
            elif words[:2] == ["delete", "chain"]:
                name = words[4]
                assert not any(name in each for of in self.sets.values() for each in of)
                assert self.chains.pop(name) == []
            elif words[:2] == ["add", "set"]:
                assert words[4] not in self.sets
                self.sets[words[4]] = set()
            elif words[:2] == ["delete", "set"]:
                used = f"@{words[4]} "
                assert not any(used in rule for chain in self.chains.values() for rule in chain)
                del self.sets[words[4]]
            elif words[1:2] == ["element"]:
                found = line[line.index("{") + 1 : line.rindex("}")].split(",")
                elements = {each.strip() for each in found}
                there = self.sets[words[4]]
                if words[0] == "add":
                    assert not elements & there
                    there |= elements
                else:
                    gone = {e for e in there if e in elements or e.split(" : ")[0] in elements}
                    assert len(gone) == len(elements)
                    there -= gone


@pytest.mark.parametrize(
    "odd",
    [
        pod("x", host=True),
        pod("x", phase="Succeeded"),
        pod("x", ip=""),
        pod("x", ip="fd00::1"),
    ],
)
def test_what_has_no_address_of_its_own_is_no_pod(odd: dict[str, Any]) -> None:
    assert view_of_pod(odd) is None


def test_pods_that_are_allowed_the_same_share_a_chain() -> None:
    ruleset = make_rules(plan_for([policy(types=["Ingress"])], "node-1"))
    assert len(ruleset.elements) == 2
    assert len(ruleset.chains) == 1
    assert [*ruleset.chains.values()] == [("drop",)]


def test_the_rules_as_they_are_written() -> None:
    one = policy(
        ingress=[
            {
                "from": [{"podSelector": match(app="web")}, {"ipBlock": {"cidr": "192.0.2.0/24"}}],
                "ports": [{"port": 80}, {"port": 8000, "endPort": 8010, "protocol": "UDP"}],
            }
        ],
        pods=match(app="db"),
    )
    ((chain, content),) = make_rules(plan_for([one], "node-1")).chains.items()
    assert chain.startswith("ingress-")
    (name,) = make_rules(plan_for([one], "node-1")).sets
    assert content == (
        f"ip saddr @{name} tcp dport 80 return",
        f"ip saddr @{name} udp dport 8000-8010 return",
        "ip saddr 192.0.2.0/24 tcp dport 80 return",
        "ip saddr 192.0.2.0/24 udp dport 8000-8010 return",
        "drop",
    )
