"""What NetworkPolicies allow to and from each pod of a node. Pure.

As Kubernetes has it: a pod that no policy selects for a direction is open in that direction; one
that is selected is closed but for what any of its policies allows. Replies always pass. So does
what the pod's own node sends and receives, whatever the policies: probes must get through.
Pods of the host's network are no pods here: neither selected nor peers. IPv4 alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from k8slite.api.meta import Obj
from k8slite.api.selectors import LabelSelector, from_object

__all__ = ["Allowed", "Peers", "Plan", "PodView", "Ports", "make_plan", "view_of_pod"]

INGRESS: Final = "Ingress"
EGRESS: Final = "Egress"
TERMINAL: Final = ("Succeeded", "Failed")


class PodView(NamedTuple):
    """What a policy sees of a pod. `ports`: (name, protocol) to number."""

    namespace: str
    ip: str
    node: str
    labels: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]


class Peers(NamedTuple):
    """The other ends: an address range, or pods. Nothing of both: everybody.

    `selector` names the pods, the same selector always alike; `ips` are theirs, sorted.
    """

    cidr: str = ""
    except_: tuple[str, ...] = ()
    selector: str = ""
    ips: tuple[str, ...] = ()


class Ports(NamedTuple):
    """`ranges` of one protocol, (first, last); none: all ports. `named`: for peers whose port has
    a name, (address, number), sorted; `name` then stands for it."""

    protocol: str
    ranges: tuple[tuple[int, int], ...] = ()
    name: str = ""
    named: tuple[tuple[str, int], ...] = ()


class Allowed(NamedTuple):
    """Anyone of `peers` and any of `ports`; `ports` None: all, of whatever protocol."""

    peers: tuple[Peers, ...]
    ports: tuple[Ports, ...] | None


class Plan(NamedTuple):
    """Address of a pod of this node to what is allowed; only those that are closed."""

    ingress: dict[str, tuple[Allowed, ...]]
    egress: dict[str, tuple[Allowed, ...]]


def view_of_pod(pod: Obj) -> PodView | None:
    """None for a pod without an address of its own."""
    spec, status, metadata = pod["spec"], pod.get("status") or {}, pod["metadata"]
    ip = status.get("podIP") or ""
    if spec.get("hostNetwork") or status.get("phase") in TERMINAL or not ip or ":" in ip:
        return None
    ports: dict[tuple[str, str], int] = {}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("name"):
                key = (port["name"], port.get("protocol") or "TCP")
                ports.setdefault(key, port["containerPort"])
    labels = metadata.get("labels") or {}
    return PodView(metadata["namespace"], ip, spec.get("nodeName") or "", labels, ports)


def make_plan(
    policies: Iterable[Obj], pods: Iterable[PodView], namespaces: Iterable[Obj], node: str
) -> Plan:
    """What the pods of `node` are allowed; `pods` are those of all nodes."""
    return _Planner(list(pods), namespaces, node).plan(policies)


class _Planner:
    def __init__(self, pods: Sequence[PodView], namespaces: Iterable[Obj], node: str) -> None:
        self._by_namespace: dict[str, list[PodView]] = {}
        for pod in pods:
            self._by_namespace.setdefault(pod.namespace, []).append(pod)
        self._namespaces = {
            one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in namespaces
        }
        self._node = node
        self._known: dict[tuple[str, str, str], list[PodView]] = {}

    def plan(self, policies: Iterable[Obj]) -> Plan:
        ingress: dict[str, list[Allowed]] = {}
        egress: dict[str, list[Allowed]] = {}
        ordered = sorted(
            policies, key=lambda p: (p["metadata"]["namespace"], p["metadata"]["name"])
        )
        for policy in ordered:
            spec, namespace = policy["spec"], policy["metadata"]["namespace"]
            selector = from_object(spec.get("podSelector") or {})
            own = [
                pod
                for pod in self._by_namespace.get(namespace, ())
                if pod.node == self._node and selector.matches(pod.labels)
            ]
            if not own:
                continue
            types = spec.get("policyTypes") or _default_types(spec)
            for pod in own:
                if INGRESS in types:
                    rules = ingress.setdefault(pod.ip, [])
                    rules += self._ingress(namespace, spec.get("ingress") or (), pod)
            if EGRESS in types:
                allowed = self._egress(namespace, spec.get("egress") or ())
                for pod in own:
                    egress.setdefault(pod.ip, []).extend(allowed)
        return Plan(_sorted(ingress), _sorted(egress))

    def _ingress(self, namespace: str, rules: Iterable[Obj], pod: PodView) -> list[Allowed]:
        found = []
        for rule in rules:
            peers = self._peers(namespace, rule.get("from") or ())
            wanted = rule.get("ports") or ()
            ports = [_ports_of(port, [pod]) for port in wanted]
            kept = tuple(_anonymous(port) for port in ports if port is not None)
            if kept or not wanted:
                found.append(Allowed(peers, kept if wanted else None))
        return found

    def _egress(self, namespace: str, rules: Iterable[Obj]) -> list[Allowed]:
        found = []
        for rule in rules:
            to = rule.get("to") or ()
            peers = self._peers(namespace, to)
            wanted = rule.get("ports") or ()
            targets = self._targets(namespace, to)
            ports = [_ports_of(port, targets) for port in wanted]
            kept = tuple(port for port in ports if port is not None)
            if kept or not wanted:
                found.append(Allowed(peers, kept if wanted else None))
        return found

    def _targets(self, namespace: str, to: Iterable[Obj]) -> list[PodView]:
        """The pods that a rule leads to, for ports by name: what the pod at an address calls it,
        also where a block of addresses is allowed."""
        found: dict[str, PodView] = {}
        for peer in to or ({"namespaceSelector": {}},):
            block = peer.get("ipBlock")
            pods = self._in_block(block) if block else self._pods_of(namespace, peer)[1]
            found |= {pod.ip: pod for pod in pods}
        return [found[ip] for ip in sorted(found)]

    def _in_block(self, block: Obj) -> list[PodView]:
        network = ipaddress.ip_network(block["cidr"], strict=False)
        but = [ipaddress.ip_network(each, strict=False) for each in block.get("except") or ()]
        return [
            pod
            for pods in self._by_namespace.values()
            for pod in pods
            if (address := ipaddress.ip_address(pod.ip)) in network
            and not any(address in each for each in but)
        ]

    def _peers(self, namespace: str, peers: Iterable[Obj]) -> tuple[Peers, ...]:
        found = []
        for peer in peers:
            block = peer.get("ipBlock")
            if block is None:
                selector, pods = self._pods_of(namespace, peer)
                ips = tuple(sorted({pod.ip for pod in pods}))
                found.append(Peers(selector=selector, ips=ips))
            elif ":" not in block["cidr"]:
                found.append(Peers(block["cidr"], tuple(block.get("except") or ())))
            else:
                found.append(Peers(selector="nobody"))
        return tuple(found) or (Peers(),)

    def _pods_of(self, namespace: str, peer: Obj) -> tuple[str, list[PodView]]:
        """(a name for the selection, the pods)"""
        of_namespaces, of_pods = peer.get("namespaceSelector"), peer.get("podSelector")
        pods = from_object(of_pods or {})
        where = str(from_object(of_namespaces)) if of_namespaces is not None else ""
        home = namespace if of_namespaces is None else ""
        key = (home, where, str(pods))
        known = self._known.get(key)
        if known is None:
            names = [home] if home else self._matching(from_object(of_namespaces))
            known = [
                pod
                for name in names
                for pod in self._by_namespace.get(name, ())
                if pods.matches(pod.labels)
            ]
            self._known[key] = known
        return "|".join(key), known

    def _matching(self, selector: LabelSelector) -> list[str]:
        return [name for name, labels in self._namespaces.items() if selector.matches(labels)]


def _default_types(spec: Mapping[str, Any]) -> list[str]:
    return [INGRESS, EGRESS] if spec.get("egress") else [INGRESS]


def _sorted(rules: dict[str, list[Allowed]]) -> dict[str, tuple[Allowed, ...]]:
    return {ip: tuple(dict.fromkeys(rules[ip])) for ip in sorted(rules)}


def _ports_of(port: Obj, targets: Sequence[PodView]) -> Ports | None:
    """One entry of `ports`; None: a name that none of the pods has."""
    protocol, number = port.get("protocol") or "TCP", port.get("port")
    if number is None:
        return Ports(protocol)
    if isinstance(number, int):
        return Ports(protocol, ((number, port.get("endPort") or number),))
    named = [(pod.ip, pod.ports.get((number, protocol), 0)) for pod in targets]
    found = tuple((ip, there) for ip, there in named if there)
    return Ports(protocol, (), number, found) if found else None


def _anonymous(port: Ports) -> Ports:
    """A port by name is a number where the pod is known."""
    if not port.name:
        return port
    ((_, number),) = port.named
    return Ports(port.protocol, ((number, number),))
