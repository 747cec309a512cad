"""From a table to nftables, after kube-proxy's nftables mode. Pure.

Everything is in one table of ours, `ip k8slite-proxy`. Addresses are looked up in maps, so a
packet costs the same with one service as with ten thousand, and a change of one service is a
change of its chains and its elements, not of a long list of rules.

    nat hooks -> services -> @service-ips -> service-... or external-... -> endpoint-... -> dnat
                          -> @service-nodeports (local addresses) -> external-...
    filter hooks before nat -> firewall-check -> @firewall-ips -> firewall-... -> drop
    filter hooks -> no-endpoints -> @no-endpoint-services, @no-endpoint-nodeports -> reject, drop
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

import attrs

from k8slite.proxy.table import Endpoint, ServicePort, Table

__all__ = ["TABLE", "Ruleset", "RulesetBuilder", "build_ruleset", "changes"]

TABLE: Final = "ip k8slite-proxy"
MARK: Final = "0x4000"
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
NAME_CHARACTERS: Final = 120

STATIC: Final = f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
  comment "rules for service addresses"
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
  map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
  chain reject-chain {{ reject; }}
  chain drop-chain {{ drop; }}
  chain mark-for-masquerade {{ meta mark set meta mark or {MARK}; }}
  chain masquerading {{
    meta mark & {MARK} == 0 return
    meta mark set meta mark xor {MARK}
    masquerade fully-random
  }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
  }}
  chain no-endpoints {{
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports
  }}
  chain firewall-check {{
    ct state new ip daddr . meta l4proto . th dport vmap @firewall-ips
  }}
  chain filter-prerouting {{ type filter hook prerouting priority -110; jump firewall-check; }}
  chain filter-output-pre-dnat {{ type filter hook output priority -110; jump firewall-check; }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
  chain filter-input {{ type filter hook input priority -110; ct state new jump no-endpoints; }}
  chain filter-forward {{
    type filter hook forward priority -110
    ct state new jump no-endpoints
  }}
  chain filter-output {{ type filter hook output priority -90; ct state new jump no-endpoints; }}
}}
"""


@attrs.define
class Ruleset:
    """What differs from one table to the next.

    chains: name to rules. elements: (map, key) to verdict. sets: name to definition.
    """

    chains: dict[str, tuple[str, ...]] = attrs.Factory(dict)
    elements: dict[tuple[str, str], str] = attrs.Factory(dict)
    sets: dict[str, str] = attrs.Factory(dict)


class RulesetBuilder:
    """Builds everything for a table, and remembers what it made of ports that stay as they are.

    `cluster_cidr`: the pods' range, whose packets to a cluster IP are not masqueraded.
    """

    def __init__(self, cluster_cidr: str) -> None:
        self._cluster_cidr = cluster_cidr
        self._parts: dict[tuple[str, str], tuple[ServicePort, Ruleset]] = {}

    def build(self, table: Table) -> Ruleset:
        parts: dict[tuple[str, str], tuple[ServicePort, Ruleset]] = {}
        whole = Ruleset()
        for key, entry in table.items():
            if entry.protocol not in PROTOCOLS:
                continue
            part = self._parts.get(key)
            if part is None or (part[0] is not entry and part[0] != entry):
                part = (entry, Ruleset())
                _Port(entry, self._cluster_cidr, part[1]).write()
            parts[key] = part
            whole.chains.update(part[1].chains)
            whole.elements.update(part[1].elements)
            whole.sets.update(part[1].sets)
        self._parts = parts
        return whole


def build_ruleset(table: Table, cluster_cidr: str) -> Ruleset:
    """Everything for a table, without memory."""
    return RulesetBuilder(cluster_cidr).build(table)


class _Port:
    """Writes one service port into a ruleset."""

    def __init__(self, entry: ServicePort, cluster_cidr: str, ruleset: Ruleset) -> None:
        self.entry = entry
        self.cidr = cluster_cidr
        self.ruleset = ruleset
        self.protocol = entry.protocol.lower()
        where = f"{entry.namespace}/{entry.name}/{self.protocol}/{entry.port_name}"
        self._name = f"{_hash(entry.key, self.protocol)}-{where}"

    def name(self, kind: str, endpoint: Endpoint | None = None) -> str:
        if endpoint is None:
            return f"{kind}-{self._name}"[:NAME_CHARACTERS]
        tail = f"{self.entry.namespace}/{self.entry.name}"
        own = _hash(self.entry.key, self.protocol, str(endpoint))
        return f"{kind}-{own}-{tail}"[: NAME_CHARACTERS - 24] + f"__{endpoint.ip}/{endpoint.port}"

    def write(self) -> None:
        entry = self.entry
        external = bool(entry.node_port or entry.external_ips)
        inner = f"{entry.cluster_ip} . {self.protocol} . {entry.port}"
        self._lead(
            "service-ips",
            "no-endpoint-services",
            inner,
            self.name("local" if entry.internal_local else "service"),
            bool(entry.cluster_endpoints),
        )
        for ip in entry.external_ips:
            key = f"{ip} . {self.protocol} . {entry.port}"
            self._lead_outside("service-ips", "no-endpoint-services", key)
        if entry.node_port:
            key = f"{self.protocol} . {entry.node_port}"
            self._lead_outside("service-nodeports", "no-endpoint-nodeports", key)
        if not entry.endpoints:
            return
        mark = self._outsiders()
        if not entry.internal_local or external:
            first = [] if entry.internal_local else mark
            self._balance(self.name("service"), first, entry.endpoints)
        if entry.local_endpoints and (entry.internal_local or (entry.external_local and external)):
            first = mark if entry.internal_local else []
            self._balance(self.name("local"), first, entry.local_endpoints)
        if external:
            self.ruleset.chains[self.name("external")] = tuple(self._external())
        if entry.source_ranges and entry.balancer_ips:
            name, ranges = (
                self.name("firewall"),
                " ".join(f"ip saddr != {source}" for source in entry.source_ranges),
            )
            self.ruleset.chains[name] = (f"{ranges} drop",)
            for ip in entry.balancer_ips:
                key = f"{ip} . {self.protocol} . {entry.port}"
                self.ruleset.elements["firewall-ips", key] = f"goto {name}"

    def _lead(self, works: str, refuses: str, key: str, chain: str, usable: bool) -> None:
        if usable:
            self.ruleset.elements[works, key] = f"goto {chain}"
        else:
            verdict = "drop-chain" if self.entry.endpoints else "reject-chain"
            self.ruleset.elements[refuses, key] = f"goto {verdict}"

    def _lead_outside(self, works: str, refuses: str, key: str) -> None:
        """Node ports and external addresses: also where only pods and the node may pass."""
        if self.entry.endpoints:
            self.ruleset.elements[works, key] = f"goto {self.name('external')}"
        if not self.entry.external_endpoints:
            self._lead(works, refuses, key, "", False)

    def _outsiders(self) -> list[str]:
        entry = self.entry
        if not self.cidr:
            return []
        match = f"ip daddr {entry.cluster_ip} {self.protocol} dport {entry.port}"
        return [f"{match} ip saddr != {self.cidr} jump mark-for-masquerade"]

    def _external(self) -> list[str]:
        everywhere = self.name("service")
        if not self.entry.external_local:
            return ["jump mark-for-masquerade", f"goto {everywhere}"]
        rules = [f"ip saddr {self.cidr} goto {everywhere}"] if self.cidr else []
        rules.append("fib saddr type local jump mark-for-masquerade")
        rules.append(f"fib saddr type local goto {everywhere}")
        if self.entry.local_endpoints:
            rules.append(f"goto {self.name('local')}")
        return rules

    def _balance(self, chain: str, first: list[str], endpoints: Sequence[Endpoint]) -> None:
        rules = list(first)
        for endpoint in endpoints:
            self._endpoint(endpoint)
            if self.entry.affinity_seconds:
                known = self.name("affinity", endpoint)
                rules.append(f"ip saddr @{known} goto {self.name('endpoint', endpoint)}")
        choices = ", ".join(
            f"{number} : goto {self.name('endpoint', endpoint)}"
            for number, endpoint in enumerate(endpoints)
        )
        rules.append(f"numgen random mod {len(endpoints)} vmap {{ {choices} }}")
        self.ruleset.chains[chain] = tuple(rules)

    def _endpoint(self, endpoint: Endpoint) -> None:
        """A pod that is led back to itself must be answered through the node."""
        rules = [f"ip saddr {endpoint.ip} jump mark-for-masquerade"]
        if self.entry.affinity_seconds:
            known = self.name("affinity", endpoint)
            self.ruleset.sets[known] = (
                f"type ipv4_addr; flags dynamic,timeout; timeout {self.entry.affinity_seconds}s;"
            )
            rules.append(f"update @{known} {{ ip saddr }}")
        rules.append(f"meta l4proto {self.protocol} dnat to {endpoint}")
        self.ruleset.chains[self.name("endpoint", endpoint)] = tuple(rules)


def _hash(*parts: str) -> str:
    digest = hashlib.sha256("".join(parts).encode()).digest()
    return base64.b32encode(digest).decode()[:8]


def changes(old: Ruleset | None, new: Ruleset) -> str:
    """The input of `nft -f -` that makes the old rules the new ones, in one transaction.

    `old` None: whatever is there is replaced. Empty where nothing differs. A set whose timeout
    changed is made anew under the chains that use it.
    """
    lines: list[str] = [STATIC] if old is None else []
    was = old or Ruleset()
    stale = {name for name, text in was.sets.items() if new.sets.get(name, text) != text}
    changed = []
    for name, rules in new.chains.items():
        before = was.chains.get(name)
        differs = before is not rules and before != rules
        if differs or (stale and any(f"@{each} " in " ".join(rules) for each in stale)):
            changed.append(name)
    gone = [name for name in was.chains if name not in new.chains]
    for name in changed:
        lines.append(f"add chain {TABLE} {name}")
    lines += [f"flush chain {TABLE} {name}" for name in (*changed, *gone) if name in was.chains]
    for (where, key), verdict in was.elements.items():
        if new.elements.get((where, key)) != verdict:
            lines.append(f"delete element {TABLE} {where} {{ {key} }}")
    lines += [f"delete set {TABLE} {name}" for name in sorted(stale)]
    for name, text in new.sets.items():
        if was.sets.get(name) != text:
            lines.append(f"add set {TABLE} {name} {{ {text} }}")
    for name in changed:
        lines += [f"add rule {TABLE} {name} {rule}" for rule in new.chains[name]]
    for (where, key), verdict in new.elements.items():
        if was.elements.get((where, key)) != verdict:
            lines.append(f"add element {TABLE} {where} {{ {key} : {verdict} }}")
    lines += [f"delete chain {TABLE} {name}" for name in gone]
    lines += [f"delete set {TABLE} {name}" for name in was.sets if name not in new.sets]
    return "\n".join(lines) + "\n" if lines else ""
