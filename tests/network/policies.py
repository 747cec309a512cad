"""NetworkPolicies for tests, and what they mean, said as plainly as the documentation does."""

from __future__ import annotations

import ipaddress
from typing import Any

from k8slite.api.selectors import from_object

Obj = dict[str, Any]


def policy(
    name: str = "p",
    namespace: str = "a",
    pods: Obj | None = None,
    *,
    ingress: list[Obj] | None = None,
    egress: list[Obj] | None = None,
    types: list[str] | None = None,
) -> Obj:
    spec: Obj = {"podSelector": pods or {}}
    if types is not None:
        spec["policyTypes"] = types
    if ingress is not None:
        spec["ingress"] = ingress
    if egress is not None:
        spec["egress"] = egress
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def pod(
    name: str, namespace: str = "a", ip: str = "10.244.1.2", node: str = "node-1", **changes: Any
) -> Obj:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "hostNetwork": changes.get("host", False),
            "containers": [{"ports": changes.get("ports", [])}],
        },
        "status": {"podIP": ip, "phase": changes.get("phase", "Running")},
    }


def namespace(name: str) -> Obj:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}


def match(**labels: str) -> Obj:
    return {"matchLabels": labels}


def of_namespace(name: str) -> Obj:
    return match(**{"kubernetes.io/metadata.name": name})


class World:
    """Policies, pods and namespaces. `pods` by address."""

    def __init__(self, policies: list[Obj], pods: list[Obj], namespaces: list[Obj]) -> None:
        self.policies = policies
        self.pods = {pod["status"]["podIP"]: pod for pod in pods}
        self.namespaces = {one["metadata"]["name"]: one for one in namespaces}

    def allows(self, source: str, target: str, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection from one address to another gets through."""
        return self._passes("Egress", source, target, target, port, protocol) and self._passes(
            "Ingress", target, source, target, port, protocol
        )

    def _passes(
        self, direction: str, subject: str, peer: str, target: str, port: int, protocol: str
    ) -> bool:
        mine = [p for p in self.policies if self._selects(p, subject, direction)]
        if not mine:
            return True
        where = "ingress" if direction == "Ingress" else "egress"
        ends = "from" if direction == "Ingress" else "to"
        return any(
            self._is_peer(p["metadata"]["namespace"], rule.get(ends), peer)
            and self._is_port(rule.get("ports"), target, port, protocol)
            for p in mine
            for rule in p["spec"].get(where) or ()
        )

    def _selects(self, policy: Obj, ip: str, direction: str) -> bool:
        pod, spec = self.pods.get(ip), policy["spec"]
        types = spec.get("policyTypes") or ["Ingress"] + (["Egress"] if spec.get("egress") else [])
        return (
            pod is not None
            and direction in types
            and pod["metadata"]["namespace"] == policy["metadata"]["namespace"]
            and from_object(spec["podSelector"]).matches(pod["metadata"]["labels"])
        )

    def _is_peer(self, home: str, peers: list[Obj] | None, ip: str) -> bool:
        if not peers:
            return True
        return any(self._matches(home, peer, ip) for peer in peers)

    def _matches(self, home: str, peer: Obj, ip: str) -> bool:
        address = ipaddress.ip_address(ip)
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            return address in ipaddress.ip_network(block["cidr"]) and not any(
                address in ipaddress.ip_network(each) for each in block.get("except", ())
            )
        pod = self.pods.get(ip)
        if pod is None:
            return False
        where = pod["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            labels = self.namespaces[where]["metadata"]["labels"]
            if not from_object(peer["namespaceSelector"]).matches(labels):
                return False
        elif where != home:
            return False
        return from_object(peer.get("podSelector") or {}).matches(pod["metadata"]["labels"])

    def _is_port(self, ports: list[Obj] | None, target: str, port: int, protocol: str) -> bool:
        if not ports:
            return True
        named = {}
        if target in self.pods:
            for each in self.pods[target]["spec"]["containers"][0]["ports"]:
                named[each["name"], each.get("protocol", "TCP")] = each["containerPort"]
        for each in ports:
            if each.get("protocol", "TCP") != protocol:
                continue
            wanted = each.get("port")
            if isinstance(wanted, str):
                wanted = named.get((wanted, protocol), 0)
            if wanted is None:
                return True
            if wanted <= port <= (each.get("endPort") or wanted):
                return True
        return False
