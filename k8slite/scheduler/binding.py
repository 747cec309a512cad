"""The second half of a pod's way: Reserve, Permit, PreBind, Bind, PostBind.

Reserve and Permit belong to the loop; the rest runs beside it, one task a pod. A binding whose
outcome is unknown is looked up before the pod is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj, name, uid
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS, ClientError
from k8slite.scheduler.framework import BindFailed, Rejection, Wait
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.profile import Profile
from k8slite.scheduler.services import Services
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.waiting import WaitingPod
from raftkv.host import Host

__all__ = ["BINDINGS_MAX", "Binder", "Outcome", "PodGone"]

log = logging.getLogger(__name__)
BINDINGS_MAX = 32
"""Bindings and refusals under way at once; deciding waits when there are as many."""
NOT_FOUND = 404
CONFLICT = 409
Outcome = Callable[[PodInfo, str, "Exception | None"], None]
"""Told at the end: the pod, its node, and why it was not bound."""


class PodGone(BindFailed):
    """It was deleted before it was bound; its event is on the way."""


class Binder:
    """One term's bindings. `slots` bounds them; the caller has taken one for each."""

    def __init__(
        self,
        api: Api,
        host: Host,
        snapshot: Snapshot,
        services: Services,
        slots: trio.Semaphore,
        tell: Outcome,
        on_pod: Callable[[Obj, Obj], None],
    ) -> None:
        self._api = api
        self._host = host
        self._snapshot = snapshot
        self._services = services
        self._slots = slots
        self._tell = tell
        self._on_pod = on_pod

    def reserve(self, pod: PodInfo, profile: Profile) -> tuple[Rejection, str] | WaitingPod | None:
        """Reserve and Permit for an assumed pod. A rejection (and who says so) leaves nothing
        reserved; a WaitingPod must be given to `run`."""
        node = self._snapshot.node(pod.node)
        assert node is not None
        for plugin in profile.reserves:
            rejection = plugin.reserve(pod, node)
            if rejection is not None:
                self.release(pod, profile)
                return rejection, plugin.name
        pending: dict[str, float] = {}
        for permit in profile.permits:
            answer = permit.permit(pod, pod.node)
            if isinstance(answer, Rejection):
                self.release(pod, profile)
                return answer, permit.name
            if isinstance(answer, Wait):
                pending[permit.name] = trio.current_time() + answer.seconds
        if not pending:
            return None
        waiting = WaitingPod(pod, pod.node, pending)
        self._services.waiting.add(waiting)
        return waiting

    def release(self, pod: PodInfo, profile: Profile) -> None:
        """Take back what was reserved, in reverse order."""
        for plugin in reversed(profile.reserves):
            plugin.unreserve(pod, pod.node)

    async def run(self, pod: PodInfo, profile: Profile, waiting: WaitingPod | None) -> None:
        node = pod.node
        try:
            if waiting is not None or any(p.needs_pre_bind(pod) for p in profile.pre_binds):
                await self._prepare(pod, profile, waiting)
            await self._bind(pod, profile)
        except (BindFailed, *REQUEST_ERRORS) as error:
            self.release(pod, profile)
            await self._resolve(pod, node, error)
        else:
            for plugin in profile.post_binds:
                plugin.post_bind(pod, node)
            self._tell(pod, node, None)
        finally:
            self._services.waiting.remove(pod.uid)
            self._slots.release()

    async def _prepare(self, pod: PodInfo, profile: Profile, waiting: WaitingPod | None) -> None:
        """That may take minutes: meanwhile others may use this one's slot."""
        self._slots.release()
        try:
            if waiting is not None:
                await waiting.wait()
            for plugin in profile.pre_binds:
                if plugin.needs_pre_bind(pod):
                    await plugin.pre_bind(pod, pod.node)
        finally:
            with trio.CancelScope(shield=True):
                await self._slots.acquire()

    async def _bind(self, pod: PodInfo, profile: Profile) -> None:
        extenders = self._services.extenders
        if extenders is not None and await extenders.bind(pod, pod.node):
            return
        for plugin in profile.binds:
            if await plugin.bind(pod, pod.node):
                return
        raise BindFailed("no bind plugin felt responsible")

    async def _resolve(self, pod: PodInfo, node: str, error: Exception) -> None:
        """The binding failed, or nobody knows; the pod keeps its place until that is clear."""
        log.warning("pod=%s node=%s binding failed error=%s", pod.key, node, error)
        unknown = isinstance(error, ClientError)
        if unknown or (isinstance(error, ApiError) and error.code in (CONFLICT, NOT_FOUND)):
            live = await self._look_up(pod)
            if live is not None and uid(live) == pod.uid and live["spec"].get("nodeName"):
                self._on_pod(pod.pod, live)
                return
            if live is None or uid(live) != pod.uid:
                error = PodGone()
        self._tell(pod, node, error)

    async def _look_up(self, pod: PodInfo) -> Obj | None:
        """The pod as it is now, or None if it is gone; asks until somebody answers."""
        wait = 0.1
        while True:
            try:
                return await self._api.get(PODS, name(pod.pod), pod.namespace)
            except ApiError as error:
                if error.code == NOT_FOUND:
                    return None
            except REQUEST_ERRORS as error:
                log.info("pod=%s error=%s", pod.key, error)
            await trio.sleep(wait * (1 + self._host.rng.random()))
            wait = min(wait * 2, 5.0)
