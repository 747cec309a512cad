"""From a plan to nftables, in one table of ours: `ip k8slite-policy`. Pure.

    forward -> replies pass -> @egress (by source) -> a chain of what the pod may reach
                            -> @ingress (by destination) -> a chain of who may reach it

A chain is named after its contents, so pods that are allowed the same share it, and a chain
never changes: a pod is led to another one. Pods that a selector chooses are a set, named after the
selector; a pod that comes or goes is an element.

What the node itself sends and receives is not forwarded, and so is never looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import attrs

from k8slite.network.policy.plan import Allowed, Peers, Plan, Ports

__all__ = ["TABLE", "Ruleset", "changes", "make_rules"]

TABLE: Final = "ip k8slite-policy"
PRIORITY: Final = 10
"""After the proxy's rules: these see where a packet really goes."""
ALL_PORTS: Final = "0-65535"
ADDRESSES: Final = "type ipv4_addr;"
ENDS: Final = "type ipv4_addr . inet_proto . inet_service;"

STATIC: Final = f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
  comment "NetworkPolicies of this node's pods"
  map egress {{ type ipv4_addr : verdict; }}
  map ingress {{ type ipv4_addr : verdict; }}
  chain forward {{
    type filter hook forward priority {PRIORITY};
    ct state established,related accept
    ip saddr vmap @egress
    ip daddr vmap @ingress
  }}
}}
"""


@attrs.define
class Ruleset:
    """chains: name to rules. sets: name to (definition, elements). elements: (map, address) to
    chain."""

    chains: dict[str, tuple[str, ...]] = attrs.Factory(dict)
    sets: dict[str, tuple[str, tuple[str, ...]]] = attrs.Factory(dict)
    elements: dict[tuple[str, str], str] = attrs.Factory(dict)


def make_rules(plan: Plan) -> Ruleset:
    """Everything for a plan."""
    ruleset = Ruleset()
    for direction, end, pods in (
        ("ingress", "saddr", plan.ingress),
        ("egress", "daddr", plan.egress),
    ):
        known: dict[tuple[Allowed, ...], str] = {}
        for ip, allowed in pods.items():
            chain = known.get(allowed)
            if chain is None:
                chain = known[allowed] = _chain(ruleset, direction, end, allowed)
            ruleset.elements[direction, ip] = chain
    return ruleset


def _chain(ruleset: Ruleset, direction: str, end: str, allowed: tuple[Allowed, ...]) -> str:
    rules = dict.fromkeys(
        f"{peers}{ports}return"
        for each in allowed
        for peer in each.peers
        for peers in _peers(ruleset, end, peer)
        for ports in _ports(ruleset, each.ports)
    )
    content = (*rules, "drop")
    name = f"{direction}-{_hash(*content)}"
    ruleset.chains[name] = content
    return name


def _peers(ruleset: Ruleset, end: str, peer: Peers) -> Iterator[str]:
    if peer.cidr:
        but = "".join(f"ip {end} != {each} " for each in peer.except_)
        yield f"ip {end} {peer.cidr} {but}"
    elif peer.selector:
        name = f"pods-{_hash(peer.selector)}"
        ruleset.sets[name] = (ADDRESSES, peer.ips)
        yield f"ip {end} @{name} "
    else:
        yield ""


def _ports(ruleset: Ruleset, ports: tuple[Ports, ...] | None) -> Iterator[str]:
    if ports is None:
        yield ""
        return
    by_protocol: dict[str, list[str]] = {}
    for port in ports:
        protocol = port.protocol.lower()
        if port.name:
            elements = tuple(f"{ip} . {protocol} . {number}" for ip, number in port.named)
            name = f"ends-{_hash(*elements)}"
            ruleset.sets[name] = (ENDS, elements)
            yield f"ip daddr . meta l4proto . th dport @{name} "
        else:
            ranges = [f"{a}-{b}" if b > a else str(a) for a, b in port.ranges] or [ALL_PORTS]
            by_protocol.setdefault(protocol, []).extend(ranges)
    for protocol, ranges in by_protocol.items():
        if ALL_PORTS in ranges:
            yield f"meta l4proto {protocol} "
        else:
            # Ranges may overlap, which one set would refuse.
            for each in dict.fromkeys(ranges):
                yield f"{protocol} dport {each} "


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def changes(old: Ruleset | None, new: Ruleset) -> str:
    """The input of `nft -f -` that makes the old rules the new ones, in one transaction.

    `old` None: whatever is there is replaced. Empty where nothing differs.
    """
    lines: list[str] = [STATIC] if old is None else []
    was = old or Ruleset()
    for name, (definition, elements) in new.sets.items():
        before = was.sets.get(name)
        if before is None:
            lines.append(f"add set {TABLE} {name} {{ {definition} }}")
        present = before[1] if before is not None else ()
        lines += _elements("delete", name, [each for each in present if each not in set(elements)])
        lines += _elements("add", name, [each for each in elements if each not in set(present)])
    for name, rules in new.chains.items():
        if name not in was.chains:
            lines.append(f"add chain {TABLE} {name}")
            lines += [f"add rule {TABLE} {name} {rule}" for rule in rules]
    for (where, ip), chain in was.elements.items():
        if new.elements.get((where, ip)) != chain:
            lines.append(f"delete element {TABLE} {where} {{ {ip} }}")
    for (where, ip), chain in new.elements.items():
        if was.elements.get((where, ip)) != chain:
            lines.append(f"add element {TABLE} {where} {{ {ip} : jump {chain} }}")
    lines += [f"flush chain {TABLE} {name}" for name in was.chains if name not in new.chains]
    lines += [f"delete chain {TABLE} {name}" for name in was.chains if name not in new.chains]
    lines += [f"delete set {TABLE} {name}" for name in was.sets if name not in new.sets]
    return "\n".join(lines) + "\n" if lines else ""


def _elements(verb: str, name: str, elements: list[str]) -> list[str]:
    return [f"{verb} element {TABLE} {name} {{ {', '.join(elements)} }}"] if elements else []
