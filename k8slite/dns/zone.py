"""The names of a cluster, as the specification of Kubernetes' DNS has them (1.1.0). Pure.

    SERVICE.NAMESPACE.svc.DOMAIN              its address; where it is headless, its ready pods'
    HOST.SERVICE.NAMESPACE.svc.DOMAIN         one pod of a headless service; HOST is its hostname
                                              or its address with dashes
    _PORT._PROTOCOL.SERVICE.NAMESPACE.svc...  where a named port is (SRV)
    1-2-3-4.NAMESPACE.pod.DOMAIN              the address itself
    4.3.2.1.in-addr.arpa                      the names of an address (PTR)

A name that lies above another one exists as well, so that it is answered with nothing (NODATA)
and not with NXDOMAIN, which resolvers may take for all names below.

Changes only mark a service; its names are made when somebody asks next.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from k8slite.api.meta import Obj

__all__ = ["Answer", "Record", "Zone"]

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
SPECIFICATION: Final = "1.1.0"
REVERSE_4: Final = ".in-addr.arpa"
REVERSE_6: Final = ".ip6.arpa"
SRV_WEIGHTS: Final = 100
CHAIN_MAX: Final = 8
"""CNAMEs that are followed within the zone."""

Key = tuple[str, str]
"""(namespace, service)"""
Records = dict[str, list[str]]
"""Type to contents, in the form of a zone file."""


class Record(NamedTuple):
    """`name` without the last dot; `data` as in a zone file: names in it end with a dot."""

    name: str
    type: str
    data: str


class Answer(NamedTuple):
    """`exists` False: NXDOMAIN. `outside`: the end of a CNAME whose target others must know."""

    exists: bool
    records: Sequence[Record] = ()
    additional: Sequence[Record] = ()
    outside: str = ""


NO_SUCH_NAME: Final = Answer(exists=False)
NO_DATA: Final = Answer(exists=True)


class _Service(NamedTuple):
    """What a service contributes. `names`: below its own; `addresses`: to full names."""

    names: dict[str, Records]
    addresses: dict[str, list[str]]


class Zone:
    """`domain` such as "cluster.local"; `server`: the address under which all this is asked."""

    def __init__(self, domain: str, server: str) -> None:
        self.domain = domain.lower().strip(".")
        self._server = server
        self._services: dict[Key, Obj] = {}
        self._slices: dict[Key, dict[str, Obj]] = {}
        self._namespaces: dict[str, bool] = {}
        self._counts: dict[str, int] = {}
        """Services in a namespace."""
        self._made: dict[Key, _Service] = {}
        self._reverse: dict[str, dict[Key, list[str]]] = {}
        self._stale: dict[Key, None] = {}

    # --- changes: handlers of informers ---------------------------------------------------------

    def service_changed(self, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        was = self._services.pop(key, None)
        if new is not None:
            self._services[key] = new
        change = (new is not None) - (was is not None)
        self._counts[key[0]] = self._counts.get(key[0], 0) + change
        if not self._counts[key[0]]:
            del self._counts[key[0]]
        self._stale[key] = None

    def slice_changed(self, old: Obj | None, new: Obj | None) -> None:
        for obj in (old, new):
            if obj is None:
                continue
            metadata = obj["metadata"]
            service = (metadata.get("labels") or {}).get(SERVICE_NAME_LABEL)
            if not service:
                continue
            key = (metadata["namespace"], service)
            slices = self._slices.setdefault(key, {})
            slices.pop(metadata["name"], None)
            if obj is new:
                slices[metadata["name"]] = obj
            if not slices:
                del self._slices[key]
            self._stale[key] = None

    def namespace_changed(self, old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        assert obj is not None
        if new is None:
            self._namespaces.pop(obj["metadata"]["name"], None)
        else:
            self._namespaces[obj["metadata"]["name"]] = True

    # --- questions --------------------------------------------------------------------------------

    def lookup(self, name: str, type_: str) -> Answer | None:
        """None: not ours to know. `name` in lower case, without the last dot."""
        self._refresh()
        return self._find(name, type_, 0)

    def _find(self, name: str, type_: str, depth: int) -> Answer | None:
        if name.endswith((REVERSE_4, REVERSE_6)):
            return self._lookup_address(name, type_)
        if name == self.domain:
            return self._give(name, self._apex(), type_)
        if not name.endswith("." + self.domain):
            return None
        *rest, kind = name[: -len(self.domain) - 1].split(".")
        if kind == "svc":
            return self._lookup_service(name, rest, type_, depth)
        if kind == "pod":
            return self._lookup_pod(name, rest, type_)
        relative = name[: -len(self.domain) - 1]
        if relative == "dns-version":
            return self._give(name, {"TXT": [f'"{SPECIFICATION}"']}, type_)
        if relative == "ns.dns":
            family = "AAAA" if ":" in self._server else "A"
            return self._give(name, {family: [self._server]}, type_)
        return NO_DATA if relative == "dns" else NO_SUCH_NAME

    def authority(self, serial: int, ttl: int) -> Record:
        """The record that says how long "no" may be remembered."""
        domain = self.domain
        data = f"ns.dns.{domain}. hostmaster.{domain}. {serial} 7200 1800 86400 {ttl}"
        return Record(domain, "SOA", data)

    def _apex(self) -> Records:
        return {"NS": [f"ns.dns.{self.domain}."], "SOA": [self.authority(1, 5).data]}

    def _has_namespace(self, namespace: str) -> bool:
        return namespace in self._namespaces or namespace in self._counts

    def _lookup_service(self, name: str, rest: list[str], type_: str, depth: int) -> Answer:
        if not rest:
            return NO_DATA
        namespace = rest.pop()
        if not rest:
            return NO_DATA if self._has_namespace(namespace) else NO_SUCH_NAME
        made = self._made.get((namespace, rest.pop()))
        if made is None:
            return NO_SUCH_NAME
        records = made.names.get(".".join(rest))
        if records is None:
            return NO_SUCH_NAME
        return self._give(name, records, type_, depth)

    def _lookup_pod(self, name: str, rest: list[str], type_: str) -> Answer:
        """The address is in the name; whether such a pod exists is not asked."""
        if not rest:
            return NO_DATA
        namespace = rest.pop()
        if not self._has_namespace(namespace):
            return NO_SUCH_NAME
        if not rest:
            return NO_DATA
        address = _undashed(rest[0]) if len(rest) == 1 else None
        if address is None:
            return NO_SUCH_NAME
        return self._give(name, {_family(address): [address]}, type_)

    def _lookup_address(self, name: str, type_: str) -> Answer | None:
        address = _reversed(name)
        names = self._reverse.get(address) if address else None
        if not names:
            return None
        found = sorted(each + "." for of_key in names.values() for each in of_key)
        return self._give(name, {"PTR": found}, type_)

    def _give(self, name: str, records: Records, type_: str, depth: int = 0) -> Answer:
        if "CNAME" in records and type_ not in ("CNAME", "ANY"):
            target = records["CNAME"][0]
            chain = [Record(name, "CNAME", target)]
            if depth >= CHAIN_MAX:  # names that lead to each other
                return Answer(True, chain)
            inside = self._find(target.rstrip("."), type_, depth + 1)
            if inside is None:
                return Answer(True, chain, outside=target.rstrip("."))
            return Answer(True, [*chain, *inside.records], inside.additional, inside.outside)
        wanted = records if type_ == "ANY" else {type_: records.get(type_, [])}
        found = [Record(name, kind, data) for kind, all_ in wanted.items() for data in all_]
        additional: list[Record] = []
        for data in records.get("SRV", ()) if type_ == "SRV" else ():
            target = data.split()[-1].rstrip(".")
            for family in ("A", "AAAA"):
                inside = self._find(target, family, CHAIN_MAX)
                additional += inside.records if inside is not None else ()
        return Answer(True, found, list(dict.fromkeys(additional)))

    # --- making names -----------------------------------------------------------------------------

    def _refresh(self) -> None:
        while self._stale:
            key, _ = self._stale.popitem()
            before = self._made.pop(key, None)
            for address in before.addresses if before else ():
                of_address = self._reverse[address]
                del of_address[key]
                if not of_address:
                    del self._reverse[address]
            service = self._services.get(key)
            if service is None:
                continue
            own = f"{key[1]}.{key[0]}.svc.{self.domain}"
            made = _make(service, list(self._slices.get(key, {}).values()), own)
            self._made[key] = made
            for address, names in made.addresses.items():
                self._reverse.setdefault(address, {})[key] = names


def _make(service: Obj, slices: list[Obj], own: str) -> _Service:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return _external(spec.get("externalName") or "", own)
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip]
    if addresses and addresses != ["None"]:
        names: dict[str, Records] = {"": {}}
        for ip in addresses:
            names[""].setdefault(_family(ip), []).append(ip)
        for port in spec.get("ports") or ():
            _add_srv(names, port, f"{SRV_WEIGHTS} {port['port']} {own}.")
        return _Service(names, {ip: [own] for ip in addresses})
    return _headless(slices, own)


def _external(target: str, own: str) -> _Service:
    """What is no name, or leads back to itself, has no answer."""
    target = target.strip(".").lower()
    usable = target and target != own and all(0 < len(part) < 64 for part in target.split("."))
    return _Service({"": {"CNAME": [target + "."]} if usable else {}}, {})


def _headless(slices: list[Obj], own: str) -> _Service:
    made = _Service({"": {}}, {})
    ready = [
        (each, endpoint)
        for each in sorted(slices, key=lambda each: str(each["metadata"]["name"]))
        for endpoint in each.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    ]
    weight = max(1, SRV_WEIGHTS // max(1, len(ready)))
    for each, endpoint in ready:
        for ip in endpoint.get("addresses") or ():
            if each.get("addressType") not in ("IPv4", "IPv6"):
                continue
            family = _family(ip)
            host = (endpoint.get("hostname") or _dashed(ip)).lower()
            for name in ("", host):
                known = made.names.setdefault(name, {}).setdefault(family, [])
                if ip not in known:
                    known.append(ip)
            full = made.addresses.setdefault(ip, [])
            if f"{host}.{own}" not in full:
                full.append(f"{host}.{own}")
            for port in each.get("ports") or ():
                if port.get("port"):
                    _add_srv(made.names, port, f"{weight} {port['port']} {host}.{own}.")
    return made


def _add_srv(names: dict[str, Records], port: Mapping[str, object], rest: str) -> None:
    if not port.get("name"):
        return
    protocol = f"_{str(port.get('protocol') or 'TCP').lower()}"
    names.setdefault(protocol, {})
    known = names.setdefault(f"_{port['name']}.{protocol}", {}).setdefault("SRV", [])
    if f"0 {rest}" not in known:
        known.append(f"0 {rest}")


def _family(ip: str) -> str:
    return "AAAA" if ":" in ip else "A"


def _dashed(ip: str) -> str:
    return ip.replace(".", "-").replace(":", "-")


def _undashed(label: str) -> str | None:
    for separator in (".", ":"):
        try:
            return str(ipaddress.ip_address(label.replace("-", separator)))
        except ValueError:
            continue
    return None


def _reversed(name: str) -> str | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for."""
    if name.endswith(REVERSE_4):
        text = ".".join(reversed(name.removesuffix(REVERSE_4).split(".")))
    else:
        digits = "".join(reversed(name.removesuffix(REVERSE_6).split(".")))
        text = ":".join(digits[i : i + 4] for i in range(0, len(digits), 4))
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
