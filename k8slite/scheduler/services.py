"""What the scheduler does for its plugins: writing to the apiserver, and moving pods in the queue.

A plugin of a user's own finds it as `handle.services`, with the client as `api`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import trio

from k8slite.api.kinds import KIND, PODS
from k8slite.api.meta import (
    Obj,
    copy,
    format_time,
    get_condition,
    name,
    namespace,
    resource_version,
    set_condition,
    uid,
)
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS, ClientError
from k8slite.client.events import EventRecorder
from k8slite.scheduler.framework import BindFailed
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.volumes import VolumeBinder
from k8slite.scheduler.waiting import WaitingPods
from raftkv.host import Host

if TYPE_CHECKING:
    from k8slite.scheduler.extenders import Extenders
    from k8slite.scheduler.profile import Profile

__all__ = ["ClaimBinder", "Services"]

log = logging.getLogger(__name__)
NOT_FOUND = 404
CONFLICT = 409
ATTEMPTS = 5
LOOK_UP_SECONDS = 0.5
RESOURCE_CLAIMS = KIND["resourceclaims.resource.k8s.io"]
FINALIZER = "resource.kubernetes.io/delete-protection"


class Services:
    """One term's. `activate(uid, gated_only)` tries a pod again."""

    def __init__(
        self,
        api: Api,
        host: Host,
        recorder: EventRecorder,
        snapshot: Snapshot,
        nursery: trio.Nursery,
        activate: Callable[[str, bool], None],
    ) -> None:
        self.api = api
        self.activate = activate
        self.recorder = recorder
        self.waiting = WaitingPods()
        self.volumes = VolumeBinder(api, snapshot)
        self.claims = ClaimBinder(api, snapshot)
        self.extenders: Extenders | None = None
        self._host = host
        self._snapshot = snapshot
        self._nursery = nursery
        self._profiles: Mapping[str, Profile] = {}

    @property
    def rng(self) -> random.Random:
        return self._host.rng

    def use(self, profiles: Mapping[str, Profile]) -> None:
        """Called once, when the plugins are made."""
        self._profiles = profiles

    def profile(self, scheduler_name: str) -> Profile:
        return self._profiles[scheduler_name]

    async def bind(self, pod: PodInfo, node: str) -> None:
        """Raises REQUEST_ERRORS."""
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name(pod.pod), "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        own = name(pod.pod)
        await self.api.create(
            PODS, binding, namespace=pod.namespace, name=own, subresource="binding"
        )

    async def evict(self, pod: PodInfo, victims: Sequence[PodInfo], node: str) -> bool:
        """Delete the victims of a preemption; False if one of them could not be."""
        failures: list[str] = []

        async def one(victim: PodInfo) -> None:
            try:
                await self._evict(pod, victim, node)
            except REQUEST_ERRORS as error:
                log.info("pod=%s victim=%s error=%s", pod.key, victim.key, error)
                failures.append(victim.key)

        async with trio.open_nursery() as nursery:
            for victim in victims:
                nursery.start_soon(one, victim)
        return not failures

    async def _evict(self, pod: PodInfo, victim: PodInfo, node: str) -> None:
        held = self.waiting.get(victim.uid)
        if held is not None:
            held.reject("DefaultPreemption", "preempted")
        else:
            try:
                await self._mark(victim, pod.scheduler_name)
                await self.api.delete(PODS, name(victim.pod), victim.namespace, uid=victim.uid)
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise
                return
        message = f"Preempted by pod {pod.uid} on node {node}"
        self.recorder.event(victim.pod, "Normal", "Preempted", message)

    async def _mark(self, victim: PodInfo, scheduler_name: str) -> None:
        """Tell in its status why it goes: who counts failures (a Job) leaves this one out."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{scheduler_name}: preempting to accommodate a higher priority pod",
        }
        live = victim.pod
        for attempt in range(ATTEMPTS):
            if (get_condition(live, "DisruptionTarget") or {}).get("status") == "True":
                return
            status = {"conditions": copy((live.get("status") or {}).get("conditions") or [])}
            set_condition(status, condition, format_time(self._host.now()))
            held = {"uid": victim.uid, "resourceVersion": resource_version(live)}
            patch = {"metadata": held, "status": status}
            try:
                await self.api.patch(
                    PODS, name(live), victim.namespace, patch, subresource="status"
                )
                return
            except ApiError as error:
                if error.code != CONFLICT or attempt == ATTEMPTS - 1:
                    raise
            live = await self.api.get(PODS, name(live), victim.namespace)
            if uid(live) != victim.uid:
                return

    def denominate(self, pod: PodInfo) -> None:
        """A more important pod takes the node that was promised to this one."""
        self._snapshot.withdraw(pod)
        self._nursery.start_soon(self._clear_nomination, pod)
        self.activate(pod.uid, False)

    async def _clear_nomination(self, pod: PodInfo) -> None:
        patch = {"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": None}}
        try:
            await self.api.patch(PODS, name(pod.pod), pod.namespace, patch, subresource="status")
        except REQUEST_ERRORS as error:
            log.info("pod=%s nomination not cleared error=%s", pod.key, error)


class ClaimBinder:
    """Writes which devices a claim got, and which pods use it."""

    def __init__(self, api: Api, snapshot: Snapshot) -> None:
        self._api = api
        self._snapshot = snapshot

    async def reserve(self, pod: PodInfo, claim_key: str, promised: Obj | None) -> None:
        """Raises BindFailed, REQUEST_ERRORS."""
        claim = self._snapshot.devices.claims.get(claim_key)
        if claim is None:
            raise BindFailed(f"resourceclaim {claim_key} is gone")
        for attempt in range(ATTEMPTS):
            try:
                await self._write(pod, claim, promised)
                return
            except ApiError as error:
                if error.code != CONFLICT or attempt == ATTEMPTS - 1:
                    raise
            except ClientError:
                if attempt == ATTEMPTS - 1:
                    raise
            live = await self._look_up(claim)
            if live is None or uid(live) != uid(claim):
                raise BindFailed(f"resourceclaim {claim_key} is another one by now")
            claim = live

    async def _look_up(self, claim: Obj) -> Obj | None:
        """The claim as it is now; asks until somebody answers."""
        while True:
            try:
                return await self._api.get(RESOURCE_CLAIMS, name(claim), namespace(claim))
            except ApiError as error:
                if error.code == NOT_FOUND:
                    return None
            except ClientError as error:
                log.info("claim=%s error=%s", name(claim), error)
            await trio.sleep(LOOK_UP_SECONDS)

    async def _write(self, pod: PodInfo, claim: Obj, promised: Obj | None) -> None:
        status = copy(claim.get("status") or {})
        users = status.setdefault("reservedFor", [])
        if status.get("allocation") and any(user.get("uid") == pod.uid for user in users):
            return
        if not status.get("allocation"):
            if promised is None:
                raise BindFailed(f"resourceclaim {name(claim)} lost its allocation")
            finalizers = claim["metadata"].get("finalizers") or []
            if FINALIZER not in finalizers:
                kept = {**claim["metadata"], "finalizers": [*finalizers, FINALIZER]}
                claim = await self._api.update(RESOURCE_CLAIMS, {**claim, "metadata": kept})
            status["allocation"] = promised
        if all(user.get("uid") != pod.uid for user in users):
            users.append({"resource": "pods", "name": name(pod.pod), "uid": pod.uid})
        await self._api.update(RESOURCE_CLAIMS, {**claim, "status": status}, subresource="status")
