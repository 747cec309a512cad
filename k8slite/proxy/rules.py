"""From a table to the chains of iptables, in kube-proxy's own words. Pure.

Chain names, comments and the order of rules are those of kube-proxy's iptables mode, so that
what people know about reading them holds here. A chain's name is a hash of the port's name and
protocol, and so stays the same as long as the port exists: a change of endpoints changes the
chains of that service and no others.

    PREROUTING, OUTPUT -> KUBE-SERVICES -> KUBE-SVC-... (cluster IP) -> KUBE-SEP-... -> DNAT
                                        -> KUBE-NODEPORTS -> KUBE-EXT-... -> KUBE-SVC-... or, for
                                           the external policy Local, KUBE-SVL-...
    POSTROUTING -> KUBE-POSTROUTING: masquerades what KUBE-MARK-MASQ has marked
    filter: KUBE-SERVICES and KUBE-EXTERNAL-SERVICES reject what has no endpoints
            KUBE-PROXY-FIREWALL drops what KUBE-FW-... of a load balancer's address did not take
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from k8slite.proxy.table import Endpoint, ServicePort, Table

__all__ = ["CANARY", "ChainBuilder", "Chains", "JUMPS", "build_chains", "changes"]

Chains = dict[tuple[str, str], tuple[str, ...]]
"""(table, chain) to its rules, without the leading "-A CHAIN "."""

MARK: Final = "0x4000"
CANARY: Final = "KUBE-PROXY-CANARY"
LARGE_ENDPOINTS: Final = 1000
NODE_PORTS_NOTE: Final = (
    '"kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
)
_NEW: Final = "-m conntrack --ctstate NEW"
_PORTALS: Final = f'{_NEW} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
_EXTERNAL: Final = (
    f'{_NEW} -m comment --comment "kubernetes externally-visible service portals" '
    "-j KUBE-EXTERNAL-SERVICES"
)
_FIREWALL: Final = (
    f'{_NEW} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
)
JUMPS: Final[tuple[tuple[str, str, str], ...]] = (
    ("nat", "PREROUTING", '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'),
    ("nat", "OUTPUT", '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'),
    (
        "nat",
        "POSTROUTING",
        '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    ),
    ("filter", "INPUT", _FIREWALL),
    ("filter", "FORWARD", _FIREWALL),
    ("filter", "OUTPUT", _FIREWALL),
    ("filter", "INPUT", _EXTERNAL),
    ("filter", "FORWARD", _EXTERNAL),
    ("filter", "FORWARD", _PORTALS),
    ("filter", "OUTPUT", _PORTALS),
    (
        "filter",
        "FORWARD",
        '-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
    ),
)
"""(table, built-in chain, rule): what leads into our chains. They go to the head."""


class _Part(NamedTuple):
    """What one port of a service contributes."""

    entry: ServicePort
    portals: tuple[str, ...]
    node_ports: tuple[str, ...]
    rejects: tuple[str, ...]
    external_rejects: tuple[str, ...]
    firewall: tuple[str, ...]
    chains: Chains


class ChainBuilder:
    """Builds all chains for a table, and remembers those of ports that stay as they are.

    `cluster_cidr`: the pods' range; others reach a cluster IP masqueraded, for their answers must
    come back through this node. With very many endpoints their rules have no comments, as with
    kube-proxy.
    """

    def __init__(self, cluster_cidr: str) -> None:
        self._cluster_cidr = cluster_cidr
        self._parts: dict[tuple[str, str], _Part] = {}
        self._large = False

    def build(self, table: Table) -> Chains:
        large = sum(len(entry.endpoints) for entry in table.values()) > LARGE_ENDPOINTS
        if large != self._large:
            self._large = large
            self._parts = {}
        parts: dict[tuple[str, str], _Part] = {}
        for key, entry in table.items():
            part = self._parts.get(key)
            if part is None or (part.entry is not entry and part.entry != entry):
                part = self._part(entry)
            parts[key] = part
        self._parts = parts
        chains: Chains = {}
        for part in parts.values():
            chains.update(part.chains)
        return {**chains, **_fixed_chains(list(parts.values()))}

    def _part(self, entry: ServicePort) -> _Part:
        chains: Chains = {}
        _service_chains(entry, self._cluster_cidr, chains, not self._large)
        return _Part(
            entry,
            tuple(_portals(entry)),
            tuple(_node_port(entry)),
            tuple(_internal_rejects(entry)),
            tuple(_external_rejects(entry)),
            tuple(_firewall(entry)),
            chains,
        )


def build_chains(table: Table, cluster_cidr: str) -> Chains:
    """All chains for a table, without memory."""
    return ChainBuilder(cluster_cidr).build(table)


def _fixed_chains(parts: Sequence[_Part]) -> Chains:
    last = f"-m comment --comment {NODE_PORTS_NOTE} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    return {
        ("nat", "KUBE-SERVICES"): (*(rule for part in parts for rule in part.portals), last),
        ("nat", "KUBE-NODEPORTS"): tuple(rule for part in parts for rule in part.node_ports),
        ("nat", CANARY): (),
        ("filter", CANARY): (),
        ("nat", "KUBE-MARK-MASQ"): (f"-j MARK --or-mark {MARK}",),
        ("nat", "KUBE-POSTROUTING"): (
            f"-m mark ! --mark {MARK}/{MARK} -j RETURN",
            f"-j MARK --xor-mark {MARK}",
            '-m comment --comment "kubernetes service traffic requiring SNAT" '
            "-j MASQUERADE --random-fully",
        ),
        ("filter", "KUBE-SERVICES"): tuple(rule for part in parts for rule in part.rejects),
        ("filter", "KUBE-EXTERNAL-SERVICES"): tuple(
            rule for part in parts for rule in part.external_rejects
        ),
        ("filter", "KUBE-PROXY-FIREWALL"): tuple(rule for part in parts for rule in part.firewall),
        ("filter", "KUBE-FORWARD"): (
            "-m conntrack --ctstate INVALID -j DROP",
            f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {MARK}/{MARK} '
            "-j ACCEPT",
            '-m comment --comment "kubernetes forwarding conntrack rule" '
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
    }


def _hash(*parts: str) -> str:
    digest = hashlib.sha256("".join(parts).encode()).digest()
    return base64.b32encode(digest).decode()[:16]


def _chain(prefix: str, entry: ServicePort) -> str:
    return f"KUBE-{prefix}-{_hash(entry.key, entry.protocol.lower())}"


def _endpoint_chain(entry: ServicePort, endpoint: Endpoint) -> str:
    return f"KUBE-SEP-{_hash(entry.key, entry.protocol.lower(), str(endpoint))}"


def _match(entry: ServicePort, address: str = "", port: int = 0) -> str:
    protocol = entry.protocol.lower()
    destination = f"-d {address}/32 " if address else ""
    return f"-m {protocol} -p {protocol} {destination}--dport {port or entry.port}"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _is_external(entry: ServicePort) -> bool:
    return bool(entry.node_port or entry.external_ips)


def _portals(entry: ServicePort) -> list[str]:
    """The rules of nat KUBE-SERVICES: from a service's addresses to its chains."""
    rules = []
    if entry.cluster_endpoints:
        chain = _chain("SVL" if entry.internal_local else "SVC", entry)
        rules.append(
            f"{_comment(entry.key + ' cluster IP')} {_match(entry, entry.cluster_ip)} -j {chain}"
        )
    if entry.endpoints:
        for ip in entry.external_ips:
            comment, chain = f"{entry.key} external IP", "EXT"
            if ip in entry.balancer_ips:
                comment = f"{entry.key} loadbalancer IP"
                chain = "FW" if entry.source_ranges else "EXT"
            rules.append(f"{_comment(comment)} {_match(entry, ip)} -j {_chain(chain, entry)}")
    return rules


def _firewall(entry: ServicePort) -> list[str]:
    """Of filter KUBE-PROXY-FIREWALL: what still has a load balancer's address was not let in."""
    if not entry.source_ranges or not entry.endpoints:
        return []
    comment = _comment(f"{entry.key} traffic not accepted by {_chain('FW', entry)}")
    return [f"{comment} {_match(entry, ip)} -j DROP" for ip in entry.balancer_ips]


def _firewall_chain(entry: ServicePort) -> Iterable[str]:
    for source in entry.source_ranges:
        yield f"{_comment(entry.key + ' loadbalancer IP')} -s {source} -j {_chain('EXT', entry)}"
    note = f"other traffic to {entry.key} will be dropped by KUBE-PROXY-FIREWALL"
    yield _comment(note)


def _node_port(entry: ServicePort) -> list[str]:
    if not entry.node_port or not entry.endpoints:
        return []
    match = _match(entry, "", entry.node_port)
    return [f"{_comment(entry.key)} {match} -j {_chain('EXT', entry)}"]


def _internal_rejects(entry: ServicePort) -> list[str]:
    if entry.cluster_endpoints:
        return []
    if entry.endpoints:
        comment, verdict = _comment(f"{entry.key} has no local endpoints"), "DROP"
    else:
        comment, verdict = _comment(f"{entry.key} has no endpoints"), "REJECT"
    return [f"{comment} {_match(entry, entry.cluster_ip)} -j {verdict}"]


def _external_rejects(entry: ServicePort) -> list[str]:
    if not _is_external(entry) or entry.external_endpoints:
        return []
    if entry.endpoints:
        comment, verdict = _comment(f"{entry.key} has no local endpoints"), "DROP"
    else:
        comment, verdict = _comment(f"{entry.key} has no endpoints"), "REJECT"
    rules = [f"{comment} {_match(entry, ip)} -j {verdict}" for ip in entry.external_ips]
    if entry.node_port:
        match = _match(entry, "", entry.node_port)
        rules.append(f"{comment} -m addrtype --dst-type LOCAL {match} -j {verdict}")
    return rules


def _service_chains(entry: ServicePort, cluster_cidr: str, chains: Chains, comments: bool) -> None:
    """KUBE-SVC (all endpoints), KUBE-SVL (local ones), KUBE-EXT and the KUBE-SEPs of a port."""
    if not entry.endpoints:
        return
    external = _is_external(entry)
    needs_all = not entry.internal_local or external
    needs_local = (entry.internal_local or (entry.external_local and external)) and bool(
        entry.local_endpoints
    )
    outsiders = (
        f"{_comment(entry.key + ' cluster IP')} {_match(entry, entry.cluster_ip)} "
        f"! -s {cluster_cidr} -j KUBE-MARK-MASQ"
    )
    used: dict[Endpoint, None] = {}
    if needs_all:
        first = [] if entry.internal_local or not cluster_cidr else [outsiders]
        chains["nat", _chain("SVC", entry)] = (*first, *_choose(entry, entry.endpoints, comments))
        used.update(dict.fromkeys(entry.endpoints))
    if needs_local:
        first = [outsiders] if entry.internal_local and cluster_cidr else []
        chains["nat", _chain("SVL", entry)] = (
            *first,
            *_choose(entry, entry.local_endpoints, comments),
        )
        used.update(dict.fromkeys(entry.local_endpoints))
    if external:
        chains["nat", _chain("EXT", entry)] = tuple(_external_chain(entry, cluster_cidr))
    if entry.balancer_ips and entry.source_ranges:
        chains["nat", _chain("FW", entry)] = tuple(_firewall_chain(entry))
    for endpoint in used:
        chains["nat", _endpoint_chain(entry, endpoint)] = _endpoint_rules(entry, endpoint, comments)


def _external_chain(entry: ServicePort, cluster_cidr: str) -> Iterable[str]:
    everywhere = _chain("SVC", entry)
    if not entry.external_local:
        yield f"{_comment(f'masquerade traffic for {entry.key} external destinations')} " + (
            "-j KUBE-MARK-MASQ"
        )
        yield f"-j {everywhere}"
        return
    if cluster_cidr:
        comment = _comment(f"pod traffic for {entry.key} external destinations")
        yield f"{comment} -s {cluster_cidr} -j {everywhere}"
    own = "-m addrtype --src-type LOCAL"
    comment = _comment(f"masquerade LOCAL traffic for {entry.key} external destinations")
    yield f"{comment} {own} -j KUBE-MARK-MASQ"
    comment = _comment(f"route LOCAL traffic for {entry.key} external destinations")
    yield f"{comment} {own} -j {everywhere}"
    if entry.local_endpoints:
        yield f"-j {_chain('SVL', entry)}"


def _choose(entry: ServicePort, endpoints: Sequence[Endpoint], comments: bool) -> Iterable[str]:
    """An endpoint at random, each with the same probability; first, where asked, the one that
    this client had before."""
    if entry.affinity_seconds:
        for endpoint in endpoints:
            chain = _endpoint_chain(entry, endpoint)
            comment = _comment(f"{entry.key} -> {endpoint}") + " " if comments else ""
            yield (
                f"{comment}-m recent --name {chain} --rcheck "
                f"--seconds {entry.affinity_seconds} --reap -j {chain}"
            )
    for index, endpoint in enumerate(endpoints):
        comment = _comment(f"{entry.key} -> {endpoint}") + " " if comments else ""
        chain = _endpoint_chain(entry, endpoint)
        left = len(endpoints) - index
        chance = f"-m statistic --mode random --probability {1 / left:0.10f} " if left > 1 else ""
        yield f"{comment}{chance}-j {chain}"


def _endpoint_rules(entry: ServicePort, endpoint: Endpoint, comments: bool) -> tuple[str, ...]:
    """A pod that is led back to itself must be answered through the node, hence masqueraded."""
    comment = _comment(entry.key) + " " if comments else ""
    protocol = entry.protocol.lower()
    recent = ""
    if entry.affinity_seconds:
        recent = f"-m recent --name {_endpoint_chain(entry, endpoint)} --set "
    return (
        f"{comment}-s {endpoint.ip}/32 -j KUBE-MARK-MASQ",
        f"{comment}{recent}-m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}",
    )


def changes(old: Chains, new: Chains) -> str:
    """The input of `iptables-restore --noflush` that makes the old chains the new ones.

    Only chains that differ are written. Empty where nothing does. A chain that goes is emptied
    and deleted after the rules that led to it are gone, all in one transaction a table.
    """
    # Chains of ports that stay as they are are the same objects, which is all that is compared.
    changed: dict[str, list[str]] = {"filter": [], "nat": []}
    for key, rules in new.items():
        before = old.get(key)
        if before is not rules and before != rules:
            changed[key[0]].append(key[1])
    gone: dict[str, list[str]] = {"filter": [], "nat": []}
    for where, name in old.keys() - new.keys():
        gone[where].append(name)
    lines: list[str] = []
    for table, names in changed.items():
        last = sorted(gone[table])
        if not names and not last:
            continue
        lines.append(f"*{table}")
        # iptables-nft looks for a chain's place in its list from the first name on: from the last
        # to the first, it finds it at once. Otherwise ten thousand chains take a minute.
        names.sort(reverse=True)
        lines += [f":{name} - [0:0]" for name in sorted((*names, *last), reverse=True)]
        for name in names:
            lines += [f"-A {name} {rule}" for rule in new[table, name]]
        lines += [f"-X {name}" for name in last]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n" if lines else ""
