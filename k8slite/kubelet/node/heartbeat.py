"""Registers the Node and keeps it fresh: a Lease every few seconds, the status when it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import trio

from k8slite.api.kinds import LEASES, NODES
from k8slite.api.meta import Obj, format_micro_time
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.node.node import (
    Machine,
    make_node,
    node_status,
    same_but_heartbeat,
    status_patch,
)
from k8slite.kubelet.runtime.interface import Runtime
from raftkv.host import Host

log = logging.getLogger(__name__)

NAMESPACE = "kube-node-lease"
NOT_FOUND, CONFLICT = 404, 409
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.1, 7.0


class Heartbeat:
    def __init__(
        self,
        api: Api,
        config: KubeletConfig,
        host: Host,
        runtime: Runtime,
        machine: Machine,
        port: int,
    ) -> None:
        self._api = api
        self._config = config
        self._host = host
        self._runtime = runtime
        self._machine = machine
        self._port = port
        self._node: Obj = {}
        self._reported_at = 0.0
        self._lease: Obj | None = None
        self.pressures: Callable[[], Collection[str]] = frozenset
        """What the node is short of; set by whoever looks."""
        self.devices: Callable[[], Mapping[str, tuple[int, int]]] = dict
        """How many devices there are, and are healthy, by resource."""
        self._hurry = trio.Event()

    def node(self) -> Obj:
        """The Node as the API has shown it last."""
        return self._node

    async def register(self) -> None:
        """Create the Node, or take over the one of that name. Repeats until it is done."""
        delay = RETRY_SECONDS_MIN
        while True:
            try:
                self._node = await self._register_once()
                await self._report(force=True)
                return
            except REQUEST_ERRORS as error:
                log.warning("cannot register node=%s: %s", self._config.node_name, error)
            await trio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS_MAX)

    async def _register_once(self) -> Obj:
        wanted = make_node(self._config, self._machine)
        wanted["status"] = await self._status({})
        try:
            return await self._api.create(NODES, wanted)
        except ApiError as error:
            if error.code != CONFLICT:
                raise
        found = await self._api.get(NODES, self._config.node_name)
        labels = found["metadata"].get("labels") or {}
        missing = {k: v for k, v in wanted["metadata"]["labels"].items() if labels.get(k) != v}
        patch: Obj = {"metadata": {"labels": missing}} if missing else {}
        if self._config.pod_cidr and not found["spec"].get("podCIDR"):
            patch["spec"] = {k: wanted["spec"][k] for k in ("podCIDR", "podCIDRs")}
        if patch:
            found = await self._api.patch(NODES, self._config.node_name, None, patch)
        return found

    async def _status(self, old: Obj) -> Obj:
        return node_status(
            self._config,
            self._machine,
            old=old,
            port=self._port,
            runtime=f"{self._runtime.name}://{self._runtime.version}",
            images=await self._runtime.list_images(),
            now=self._host.now(),
            pressures=self.pressures(),
            devices=self.devices(),
        )

    async def _report(self, *, force: bool = False) -> None:
        """Write the status if it has changed, or was not written for long."""
        old = self._node.get("status") or {}
        new = await self._status(old)
        due = self._reported_at + self._config.timings.node_status_report
        if not force and same_but_heartbeat(old, new) and self._host.now() < due:
            return
        name = self._config.node_name
        self._node = await self._api.patch(
            NODES, name, None, status_patch(new), type="strategic", subresource="status"
        )
        self._reported_at = self._host.now()

    def hurry(self) -> None:
        """Something changed that others wait for."""
        self._hurry.set()

    async def report_status(self) -> None:
        """Until cancelled: look at the Node as it is, and correct it."""
        while True:
            self._hurry = trio.Event()
            with trio.move_on_after(self._config.timings.node_status * self._jitter()):
                await self._hurry.wait()
            try:
                self._node = await self._api.get(NODES, self._config.node_name)
                await self._report()
            except REQUEST_ERRORS as error:
                log.warning("node status not written node=%s: %s", self._config.node_name, error)

    async def renew_lease(self) -> None:
        """Until cancelled: renew the Lease; after a failure soon again."""
        retry = RETRY_SECONDS_MIN
        while True:
            try:
                await self._renew()
            except REQUEST_ERRORS as error:
                log.warning("lease not renewed node=%s: %s", self._config.node_name, error)
                self._lease = None
                await trio.sleep(retry)
                retry = min(retry * 2, self._config.timings.lease)
                continue
            retry = RETRY_SECONDS_MIN
            await trio.sleep(self._config.timings.lease * self._jitter())

    def _jitter(self) -> float:
        """Within 4 %: many nodes started at once must not beat as one."""
        return 1 + 0.04 * (self._host.rng.random() - 0.5)

    async def _renew(self) -> None:
        name = self._config.node_name
        if self._lease is None:
            try:
                self._lease = await self._api.get(LEASES, name, NAMESPACE)
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise
                self._lease = await self._api.create(LEASES, self._fresh_lease())
                return
        spec = {
            **(self._lease.get("spec") or {}),
            "holderIdentity": name,
            "leaseDurationSeconds": self._config.timings.lease_duration,
            "renewTime": format_micro_time(self._host.now()),
        }
        self._lease = await self._api.update(LEASES, {**self._lease, "spec": spec})

    def _fresh_lease(self) -> Obj:
        name = self._config.node_name
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": name,
            "uid": self._node["metadata"]["uid"],
        }
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": self._config.timings.lease_duration,
                "renewTime": format_micro_time(self._host.now()),
            },
        }
