"""Which apiservers live, and the `kubernetes` Service that leads to them.

Each server renews a Lease of its own in kube-system. A server counts as alive while others see
its lease change; that is measured on the watcher's own clock, so clocks need not agree. Every
server writes the endpoints when they differ from what it sees; the writes are the same for all,
so they need no leader.
"""

from __future__ import annotations

import ipaddress
import logging

import trio

from k8slite.api.defaults import apply_defaults
from k8slite.api.kinds import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    KIND,
    LEASES,
    SERVICES,
    Kind,
)
from k8slite.api.meta import Obj, copy, format_micro_time, format_time
from k8slite.apiserver.bootstrap.objects import new_object
from k8slite.apiserver.core import Core
from k8slite.apiserver.forms import read
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.registry.identity import new_uid
from k8slite.apiserver.store.base import Changed, Write
from raftkv.errors import KvError

__all__ = ["Membership"]

log = logging.getLogger(__name__)

NAMESPACE = "kube-system"
LABEL = "apiserver.kubernetes.io/identity"
SELECTED = "kube-apiserver"
ADVERTISED = "kubernetes.io/peer-advertise-address"
SERVICE_NAME = "kubernetes"
CHECK_SECONDS = 1.0


class Membership:
    """One task; owns this server's lease."""

    def __init__(self, core: Core) -> None:
        self._core = core
        config = core.config
        first = core.addresses[0]
        self._host = config.advertise_address or first.host
        self._port = config.advertise_port or first.port
        self._name = config.identity
        self._holder = f"{config.identity}_{new_uid(core.host.rng)}"
        self._seen: dict[str, tuple[int, float]] = {}
        self._renewed_at = float("-inf")
        self._leaving = False

    async def run(self) -> None:
        """Renew the lease and keep the endpoints right, for ever."""
        while True:
            await self.step()
            await trio.sleep(CHECK_SECONDS)

    async def step(self) -> None:
        """One round; failures of the store are logged and tried again in the next."""
        core = self._core
        if self._leaving:
            return
        try:
            with trio.move_on_after(core.config.store_seconds):
                now = trio.current_time()
                if now - self._renewed_at >= core.config.lease_renew_seconds:
                    await self._renew()
                    self._renewed_at = now
                await self._publish(self._alive())
        except KvError as error:
            log.warning("membership round failed: %s", error)
        except Changed:
            log.debug("another apiserver wrote at the same time")

    async def leave(self) -> None:
        """Take this server off the endpoints, on the way out."""
        self._leaving = True
        cache = self._core.mirror.cache(LEASES)
        entry = cache.get(NAMESPACE, self._name)
        try:
            if entry is not None:
                key = storage_key(LEASES, NAMESPACE, self._name)
                await self._core.store.commit([Write(key, None, entry.revision)])
            await self._publish(self._alive(leaving=True))
        except (KvError, Changed) as error:
            log.info("left without saying so: %s", error)

    async def _renew(self) -> None:
        core = self._core
        now = core.now()
        entry = core.mirror.cache(LEASES).get(NAMESPACE, self._name)
        annotations = {ADVERTISED: f"{self._host}:{self._port}"}
        spec = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": core.config.lease_seconds,
            "renewTime": format_micro_time(now),
        }
        if entry is None:
            metadata = {
                "name": self._name,
                "namespace": NAMESPACE,
                "labels": {LABEL: SELECTED, "kubernetes.io/hostname": core.host.name},
                "annotations": annotations,
            }
            lease = new_object(core, LEASES, {"metadata": metadata, "spec": spec})
        else:
            lease = read(LEASES, entry)
            lease["metadata"]["annotations"] = annotations
            lease["spec"] = spec
        key = storage_key(LEASES, NAMESPACE, self._name)
        expected = 0 if entry is None else entry.revision
        await core.store.commit([Write(key, encode(lease), expected)])

    def _alive(self, *, leaving: bool = False) -> list[tuple[str, int]]:
        """Address and port of every server whose lease has changed lately, and our own unless we
        are leaving. Servers may share an address."""
        now = trio.current_time()
        alive = set() if leaving else {(self._host, self._port)}
        seen: dict[str, tuple[int, float]] = {}
        for entry in self._core.mirror.cache(LEASES).select(f"{NAMESPACE}/"):
            metadata = entry.parsed()["metadata"]
            if (metadata.get("labels") or {}).get(LABEL) != SELECTED:
                continue
            if leaving and entry.name == self._name:
                continue
            before = self._seen.get(entry.name)
            at = before[1] if before and before[0] == entry.revision else now
            seen[entry.name] = (entry.revision, at)
            if now - at < self._core.config.endpoint_seconds:
                host, _, port = (
                    (metadata.get("annotations") or {}).get(ADVERTISED, "").rpartition(":")
                )
                if host and port.isdigit():
                    alive.add((host, int(port)))
        self._seen = seen
        return sorted(alive)

    async def _publish(self, alive: list[tuple[str, int]]) -> None:
        """Service, Endpoints and EndpointSlice named kubernetes, as they should be."""
        await self._ensure_service()
        if not alive:
            return
        ports = sorted({port for _, port in alive})
        subsets = [
            {
                "addresses": [{"ip": host} for host, at in alive if at == port],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
            for port in ports
        ]
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        await self._ensure(ENDPOINTS, SERVICE_NAME, labels, {"subsets": subsets})
        for i, port in enumerate(ports):
            await self._ensure(
                ENDPOINT_SLICES,
                SERVICE_NAME if not i else f"{SERVICE_NAME}-{port}",
                {"kubernetes.io/service-name": SERVICE_NAME},
                {
                    "addressType": "IPv6" if ":" in alive[0][0] else "IPv4",
                    "endpoints": [
                        {"addresses": [host], "conditions": {"ready": True}}
                        for host, at in alive
                        if at == port
                    ],
                    "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
                },
            )
        await self._drop_slices({SERVICE_NAME, *(f"{SERVICE_NAME}-{p}" for p in ports[1:])})

    async def _drop_slices(self, wanted: set[str]) -> None:
        cache = self._core.mirror.cache(ENDPOINT_SLICES)
        for entry in list(cache.select("default/")):
            labels = entry.parsed()["metadata"].get("labels") or {}
            ours = labels.get("kubernetes.io/service-name") == SERVICE_NAME
            if ours and entry.name not in wanted:
                key = storage_key(ENDPOINT_SLICES, "default", entry.name)
                await self._core.store.commit([Write(key, None, entry.revision)])

    async def _ensure(self, kind: Kind, name: str, labels: Obj, parts: Obj) -> None:
        core = self._core
        entry = core.mirror.cache(kind).get("default", name)
        key = storage_key(kind, "default", name)
        if entry is None:
            metadata = {"name": name, "namespace": "default", "labels": labels}
            obj = new_object(core, kind, {"metadata": metadata, **parts})
            await core.store.commit([Write(key, encode(obj), 0)])
            return
        old = read(kind, entry)
        new = {**copy(old), **copy(parts)}
        apply_defaults(kind, new)
        if new != old:
            if "generation" in new["metadata"]:
                new["metadata"]["generation"] += 1
            await core.store.commit([Write(key, encode(new), entry.revision)])

    async def _ensure_service(self) -> None:
        core = self._core
        if core.mirror.cache(SERVICES).get("default", SERVICE_NAME) is not None:
            return
        network = ipaddress.ip_network(core.config.service_cidr)
        ip = str(network.network_address + 1)
        service = new_object(
            core,
            SERVICES,
            {
                "metadata": {
                    "name": SERVICE_NAME,
                    "namespace": "default",
                    "labels": {"component": "apiserver", "provider": "kubernetes"},
                },
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": ip,
                    "ipFamilyPolicy": "SingleStack",
                    "sessionAffinity": "None",
                    "ports": [
                        {"name": "https", "protocol": "TCP", "port": 443, "targetPort": self._port}
                    ],
                },
            },
        )
        service["spec"]["clusterIPs"] = [ip]
        service["spec"]["ipFamilies"] = [f"IPv{network.version}"]
        ip_addresses = KIND["ipaddresses.networking.k8s.io"]
        reference = {
            "group": "",
            "resource": "services",
            "namespace": "default",
            "name": SERVICE_NAME,
        }
        address = new_object(
            core,
            ip_addresses,
            {
                "metadata": {
                    "name": ip,
                    "labels": {
                        "ipaddress.kubernetes.io/ip-family": f"IPv{network.version}",
                        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                    },
                },
                "spec": {"parentRef": reference},
            },
        )
        await core.store.commit(
            [
                Write(storage_key(SERVICES, "default", SERVICE_NAME), encode(service), 0),
                Write(storage_key(ip_addresses, "", ip), encode(address), 0),
            ]
        )
        log.info(
            "created service=default/%s ip=%s at=%s", SERVICE_NAME, ip, format_time(core.now())
        )
