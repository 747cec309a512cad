"""The scheduler's loop: one pod at a time is decided on, many bindings are under way.

Handlers of the informers keep the snapshot and the queue; `_schedule_one` decides, assumes and
starts the binding. A binding whose outcome is unknown is looked up before the pod is tried
again. The status of a pod that found no place, and the events, are written on the side.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import frozen

from k8slite.api.kinds import NAMESPACES, NODES, PODS
from k8slite.api.meta import Obj, deleting, format_time, get_condition, name, namespace, uid
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.errors import REQUEST_ERRORS, ClientError
from k8slite.client.events import EventRecorder, open_event_recorder
from k8slite.client.informer import SharedInformers, open_informers
from k8slite.client.leader import LeaderElectionConfig, LeaderState, run_leader_elected
from k8slite.scheduler.decide import Decision, decide
from k8slite.scheduler.framework import ClusterEvent
from k8slite.scheduler.plugins.table import FILTERS
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.preempt import Preemption, preempt
from k8slite.scheduler.queue import SchedulingQueue
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.volumes import BindFailed, VolumeBinder
from raftkv.host import Host

__all__ = ["Scheduler", "SchedulerConfig", "open_scheduler", "run_replica", "run_scheduling"]

log = logging.getLogger(__name__)

BINDINGS_MAX = 32
"""Bindings under way at once; deciding waits when there are as many."""
FLUSH_SECONDS = 30.0
NOT_FOUND = 404
CONFLICT = 409


@frozen(kw_only=True)
class SchedulerConfig:
    """`identity` must be another one for each process."""

    client: ClientConfig
    identity: str
    scheduler_name: str = "default-scheduler"
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0
    leader_elect: bool = True
    backoff_seconds_min: float = 1.0
    backoff_seconds_max: float = 10.0


class Scheduler:
    """A running replica."""

    def __init__(self) -> None:
        self.leader = LeaderState()
        self.bound = 0

    @property
    def leading(self) -> bool:
        return self.leader.leading


@asynccontextmanager
async def open_scheduler(config: SchedulerConfig, host: Host) -> AsyncIterator[Scheduler]:
    """A replica that campaigns, leads, and campaigns again; on leaving, it gives up its Lease."""
    scheduler = Scheduler()
    async with open_client(config.client, host) as client, open_background() as nursery:
        nursery.start_soon(run_replica, client, config, host, scheduler)
        yield scheduler


async def run_replica(api: Api, config: SchedulerConfig, host: Host, scheduler: Scheduler) -> None:
    """Campaign, lead, and campaign again, until cancelled."""

    async def lead() -> None:
        await run_scheduling(api, config, host, scheduler)

    if not config.leader_elect:
        scheduler.leader.leading = True
        await lead()
        return
    election = LeaderElectionConfig(
        name="kube-scheduler",
        identity=config.identity,
        lease_seconds=config.lease_seconds,
        renew_seconds=config.renew_seconds,
        retry_seconds=config.retry_seconds,
    )
    while True:
        await run_leader_elected(api, host, election, lead, scheduler.leader)


async def run_scheduling(
    api: Api, config: SchedulerConfig, host: Host, scheduler: Scheduler | None = None
) -> None:
    """Schedule pods until cancelled."""
    async with (
        open_event_recorder(api, host, config.scheduler_name) as recorder,
        open_informers(api, host) as informers,
        trio.open_nursery() as nursery,
    ):
        term = _Term(api, config, host, recorder, nursery, scheduler or Scheduler())
        await term.watch(informers)
        nursery.start_soon(term.flush)
        await term.schedule()


class _Term:
    """What one term of leadership knows."""

    def __init__(
        self,
        api: Api,
        config: SchedulerConfig,
        host: Host,
        recorder: EventRecorder,
        nursery: trio.Nursery,
        scheduler: Scheduler,
    ) -> None:
        self._api = api
        self._config = config
        self._host = host
        self._recorder = recorder
        self._nursery = nursery
        self._scheduler = scheduler
        self._snapshot = Snapshot()
        self._queue = SchedulingQueue(
            FILTERS,
            backoff_min=config.backoff_seconds_min,
            backoff_max=config.backoff_seconds_max,
        )
        self._volumes = VolumeBinder(api, self._snapshot)
        self._wake = trio.Event()
        self._bindings = trio.Semaphore(BINDINGS_MAX)
        self._start = 0
        self._victims: dict[str, tuple[str, ...]] = {}
        """By the uid of the pod that they make room for."""

    async def watch(self, informers: SharedInformers) -> None:
        """Fill the snapshot before the first decision: nodes, then pods."""
        nodes = informers.of(NODES)
        pods = informers.of(PODS)
        spaces = informers.of(NAMESPACES)
        self._volumes.watch(informers, self._on_storage)
        await informers.wait_synced()
        spaces.add_handler(self._on_space)
        nodes.add_handler(self._on_node)
        pods.add_handler(self._on_pod)

    async def schedule(self) -> None:
        while True:
            await self._bindings.acquire()
            info = self._queue.pop(trio.current_time())
            if info is not None:
                self._schedule_one(info)
                continue
            self._bindings.release()
            self._wake = trio.Event()
            with trio.CancelScope(deadline=self._queue.next_due()):
                await self._wake.wait()

    async def flush(self) -> None:
        while True:
            await trio.sleep(FLUSH_SECONDS)
            self._queue.flush_unschedulable(trio.current_time())
            self._wake.set()

    # What the informers tell.

    def _on_node(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            assert old is not None
            self._snapshot.remove_node(name(old))
            return
        self._snapshot.put_node(new)
        if old is None:
            self._on_event(ClusterEvent.NODE_ADDED)
        elif _node_view(old) != _node_view(new):
            self._on_event(ClusterEvent.NODE_CHANGED)

    def _on_storage(self, old: Obj | None, new: Obj | None) -> None:
        self._on_event(ClusterEvent.STORAGE_CHANGED)

    def _on_space(self, old: Obj | None, new: Obj | None) -> None:
        space = new or old
        assert space is not None
        labels = None if new is None else new["metadata"].get("labels") or {}
        self._snapshot.counters.set_space(name(space), labels)

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (new is None or uid(old) != uid(new)):
            self._forget_pod(old)
        if new is None:
            return
        if new["spec"].get("nodeName"):
            self._on_placed(old, new)
        elif not self._is_ours(new):
            self._queue.remove(uid(new))
        elif not self._snapshot.is_assumed(uid(new)):
            self._queue.add(pod_info(new), trio.current_time())
            self._wake.set()

    def _on_placed(self, old: Obj | None, new: Obj) -> None:
        self._queue.remove(uid(new))
        self._victims.pop(uid(new), None)
        if (new.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self._forget_pod(new)
            return
        if self._snapshot.confirm(new):
            self._on_event(ClusterEvent.POD_PLACED)
            return
        known = self._snapshot.pod(uid(new))
        placed = known is None or self._snapshot.is_assumed(uid(new))
        if placed or old is None or _pod_view(old) != _pod_view(new):
            self._snapshot.put_pod(pod_info(new))
            self._on_event(ClusterEvent.POD_PLACED)

    def _forget_pod(self, pod: Obj) -> None:
        self._queue.remove(uid(pod))
        self._victims.pop(uid(pod), None)
        if self._snapshot.pod(uid(pod)) is not None:
            self._snapshot.remove_pod(uid(pod))
            self._on_event(ClusterEvent.POD_GONE)

    def _on_event(self, event: ClusterEvent) -> None:
        if self._queue.on_event(event, trio.current_time()):
            self._wake.set()

    def _is_ours(self, pod: Obj) -> bool:
        spec = pod["spec"]
        ours = spec.get("schedulerName", "default-scheduler") == self._config.scheduler_name
        phase = (pod.get("status") or {}).get("phase")
        return (
            ours
            and not deleting(pod)
            and not spec.get("schedulingGates")
            and phase not in ("Succeeded", "Failed")
        )

    # Deciding and binding.

    def _schedule_one(self, info: PodInfo) -> None:
        """Decide for the pod in hand; the binding or the refusal is written in a task of its own,
        which holds the slot that the caller has acquired."""
        decision = decide(info, self._snapshot, self._start, self._host.rng)
        count = len(self._snapshot.nodes)
        if count:
            self._start = (self._start + decision.looked_at) % count
        if decision.node:
            self._snapshot.assume(info, decision.node)
            self._nursery.start_soon(self._bind, info, self._volumes.reserve(info))
            return
        attempt = self._preempt(info, decision)
        self._queue.set_unschedulable(info.uid, decision.plugins, trio.current_time())
        self._nursery.start_soon(self._refuse, info, decision, attempt)

    def _preempt(self, info: PodInfo, decision: Decision) -> Preemption:
        """Choose victims, but not a second time while the first ones are still stopping."""
        stopping = self._victims.get(info.uid, ())
        if any(self._snapshot.pod(victim) is not None for victim in stopping):
            return Preemption("")
        self._victims.pop(info.uid, None)
        attempt = preempt(info, self._snapshot, decision.resolvable, FILTERS)
        if attempt.node:
            self._victims[info.uid] = tuple(victim.uid for victim in attempt.victims)
        return attempt

    async def _bind(self, info: PodInfo, chosen: dict[str, str] | None) -> None:
        """Bind the pod's claims (`chosen`: the volume for each, see `VolumeBinder`), then it."""
        pod, node = info.pod, info.node
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name(pod), "namespace": namespace(pod), "uid": uid(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            if chosen is not None:
                await self._bind_volumes(info, chosen)
            await self._api.create(
                PODS, binding, namespace=namespace(pod), name=name(pod), subresource="binding"
            )
        except (BindFailed, *REQUEST_ERRORS) as error:
            self._volumes.release(chosen)
            await self._unbind(info, error)
        else:
            self._scheduler.bound += 1
            message = f"Successfully assigned {info.key} to {node}"
            self._recorder.event(pod, "Normal", "Scheduled", message)
            self._queue.remove(info.uid)
        finally:
            self._bindings.release()

    async def _bind_volumes(self, info: PodInfo, chosen: dict[str, str]) -> None:
        """That may take minutes: meanwhile others may use this one's slot."""
        self._bindings.release()
        try:
            await self._volumes.bind(info, chosen)
        finally:
            with trio.CancelScope(shield=True):
                await self._bindings.acquire()

    async def _unbind(self, info: PodInfo, error: Exception) -> None:
        """The binding failed, or nobody knows; the pod keeps its place until that is clear."""
        log.warning("pod=%s node=%s binding failed error=%s", info.key, info.node, error)
        unknown = isinstance(error, ClientError)
        if unknown or (isinstance(error, ApiError) and error.code in (CONFLICT, NOT_FOUND)):
            live = await self._look_up(info)
            if live is None or uid(live) != info.uid:
                self._snapshot.forget(info)  # it was deleted; its event is on the way
                self._queue.remove(info.uid)
                return
            if live["spec"].get("nodeName"):
                self._on_pod(info.pod, live)
                return
        message = f"Binding rejected: {error}"
        self._recorder.event(info.pod, "Warning", "FailedScheduling", message)
        self._snapshot.forget(info)
        self._queue.set_failed(info.uid, trio.current_time())
        self._on_event(ClusterEvent.POD_GONE)
        self._wake.set()

    async def _look_up(self, info: PodInfo) -> Obj | None:
        """The pod as it is now, or None if it is gone; asks until somebody answers."""
        wait = 0.1
        while True:
            try:
                return await self._api.get(PODS, name(info.pod), info.namespace)
            except ApiError as error:
                if error.code == NOT_FOUND:
                    return None
            except REQUEST_ERRORS as error:
                log.info("pod=%s error=%s", info.key, error)
            await trio.sleep(wait * (1 + self._host.rng.random()))
            wait = min(wait * 2, 5.0)

    async def _refuse(self, info: PodInfo, decision: Decision, attempt: Preemption) -> None:
        """Tell that no node passes; make room if the pod is important enough."""
        message = decision.message + attempt.message
        try:
            self._recorder.event(info.pod, "Warning", "FailedScheduling", message)
            await self._write_condition(info, message, attempt.node)
            for victim in attempt.victims:
                await self._evict(info, victim, attempt.node)
        except REQUEST_ERRORS as error:
            self._victims.pop(info.uid, None)
            log.info("pod=%s status not written error=%s", info.key, error)
        finally:
            self._bindings.release()

    async def _write_condition(self, info: PodInfo, message: str, nominated: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": format_time(self._host.now()),
        }
        status = info.pod.get("status") or {}
        old = get_condition(info.pod, "PodScheduled")
        if old is not None and old.get("status") == "False":
            condition["lastTransitionTime"] = old.get("lastTransitionTime")
            if old.get("message") == message and not nominated:
                return
        others = [c for c in status.get("conditions") or () if c["type"] != "PodScheduled"]
        patch: Obj = {
            "metadata": {"uid": info.uid},
            "status": {"conditions": [*others, condition]},
        }
        if nominated:
            patch["status"]["nominatedNodeName"] = nominated
        await self._api.patch(PODS, name(info.pod), info.namespace, patch, subresource="status")

    async def _evict(self, info: PodInfo, victim: PodInfo, node: str) -> None:
        try:
            await self._api.delete(PODS, name(victim.pod), victim.namespace, uid=victim.uid)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
        message = f"Preempted by pod {info.uid} on node {node}"
        self._recorder.event(victim.pod, "Normal", "Preempted", message)


def _node_view(node: Obj) -> tuple[object, ...]:
    """What filters see of a node; heartbeats are no change."""
    spec = node.get("spec") or {}
    return (
        node["metadata"].get("labels"),
        spec.get("taints"),
        spec.get("unschedulable"),
        (node.get("status") or {}).get("allocatable"),
    )


def _pod_view(pod: Obj) -> tuple[object, ...]:
    """What the snapshot holds of a bound pod; its status is no change."""
    return pod["metadata"].get("labels"), pod["spec"]
