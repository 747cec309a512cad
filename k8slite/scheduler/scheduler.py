"""The scheduler's loop: one pod at a time is decided on, many bindings are under way.

Handlers of the informers (`watchers`) keep the snapshot and the queue; `_schedule_one` decides,
assumes and starts the binding (`binding`). The status of a pod that found no place, the events, and
what plugins do about it, are written on the side.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import field, frozen

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj, format_time, get_condition, name
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.client.events import EventRecorder, open_event_recorder
from k8slite.client.informer import SharedInformers, open_informers
from k8slite.client.leader import LeaderElectionConfig, LeaderState, run_leader_elected
from k8slite.client.metrics import Metrics, open_metrics_server
from k8slite.scheduler.binding import BINDINGS_MAX, Binder, PodGone
from k8slite.scheduler.config import DEFAULT_CONFIGURATION, Configuration, build_profiles
from k8slite.scheduler.decide import Decision, Feasible, choose, find_feasible
from k8slite.scheduler.events import ASSIGNED_POD, Action, Change
from k8slite.scheduler.extenders import ExtenderFailed, Extenders
from k8slite.scheduler.framework import Handle, PostFilterResult
from k8slite.scheduler.loader import find_plugin
from k8slite.scheduler.measures import Measures
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.profile import Profile
from k8slite.scheduler.queue import SchedulingQueue
from k8slite.scheduler.services import Services
from k8slite.scheduler.snapshot import Snapshot
from k8slite.scheduler.watchers import Watchers
from raftkv.host import Address, Host

__all__ = ["Scheduler", "SchedulerConfig", "open_scheduler", "run_replica", "run_scheduling"]

log = logging.getLogger(__name__)

FLUSH_SECONDS = 30.0
SHOWN = {
    "active": "active",
    "backoff": "backoff",
    "unschedulable": "unschedulable",
    "gated": "gated",
    "in hand": "in-flight",
}


@frozen(kw_only=True)
class SchedulerConfig:
    """`identity` must be another one for each process; `metrics`: where they are shown."""

    client: ClientConfig
    identity: str
    configuration: Configuration = DEFAULT_CONFIGURATION
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0
    leader_elect: bool = True
    lease_name: str = "kube-scheduler"
    metrics: Address | None = None


class Scheduler:
    """A running replica. `metrics_address` is None if nobody asked for metrics."""

    def __init__(self) -> None:
        self.leader = LeaderState()
        self.bound = 0
        self.metrics = Metrics()
        self.metrics_address: Address | None = None

    @property
    def leading(self) -> bool:
        return self.leader.leading


@asynccontextmanager
async def open_scheduler(config: SchedulerConfig, host: Host) -> AsyncIterator[Scheduler]:
    """A replica that campaigns, leads, and campaigns again; on leaving, it gives up its Lease.

    Raises InvalidConfiguration for plugins that cannot be made.
    """
    build_profiles(config.configuration, find_plugin, lambda name: Handle(scheduler_name=name))
    scheduler = Scheduler()
    async with AsyncExitStack() as stack:
        if config.metrics is not None:
            server = open_metrics_server(host, config.metrics, scheduler.metrics)
            scheduler.metrics_address = await stack.enter_async_context(server)
        client = await stack.enter_async_context(open_client(config.client, host))
        nursery = await stack.enter_async_context(open_background())
        nursery.start_soon(run_replica, client, config, host, scheduler)
        yield scheduler


async def run_replica(api: Api, config: SchedulerConfig, host: Host, scheduler: Scheduler) -> None:
    """Campaign, lead, and campaign again, until cancelled."""

    async def lead() -> None:
        await run_scheduling(api, config, host, scheduler)

    said = config.configuration.election
    if not said.get("leaderElect", config.leader_elect):
        scheduler.leader.leading = True
        await lead()
        return
    election = LeaderElectionConfig(
        name=said.get("resourceName", config.lease_name),
        identity=config.identity,
        lease_seconds=said.get("leaseDuration", config.lease_seconds),
        renew_seconds=said.get("renewDeadline", config.renew_seconds),
        retry_seconds=said.get("retryPeriod", config.retry_seconds),
    )
    while True:
        await run_leader_elected(api, host, election, lead, scheduler.leader)


async def run_scheduling(
    api: Api, config: SchedulerConfig, host: Host, scheduler: Scheduler | None = None
) -> None:
    """Schedule pods until cancelled."""
    component = config.configuration.profiles[0].scheduler_name
    async with (
        open_event_recorder(api, host, component) as recorder,
        open_informers(api, host) as informers,
        trio.open_nursery() as nursery,
    ):
        term = _Term(api, config.configuration, host, recorder, nursery, scheduler or Scheduler())
        try:
            await term.watch(informers)
            nursery.start_soon(term.flush)
            await term.schedule()
        finally:
            await term.aclose()


@frozen
class _Attempt:
    """One try for one pod: who has it in hand, and when that began."""

    info: PodInfo
    profile: Profile
    started: float = field(factory=trio.current_time)


class _Term:
    """What one term of leadership knows."""

    def __init__(
        self,
        api: Api,
        configuration: Configuration,
        host: Host,
        recorder: EventRecorder,
        nursery: trio.Nursery,
        scheduler: Scheduler,
    ) -> None:
        self._api = api
        self._host = host
        self._recorder = recorder
        self._nursery = nursery
        self._scheduler = scheduler
        self._snapshot = Snapshot()
        self._services = Services(api, host, recorder, self._snapshot, nursery, self._activate)
        self._profiles = build_profiles(
            configuration, find_plugin, lambda own: Handle(self._snapshot, own, self._services)
        )
        self._services.use(self._profiles)
        if configuration.extenders:
            self._services.extenders = Extenders(configuration.extenders, host)
        self._queue = SchedulingQueue(
            self._profiles,
            backoff_min=configuration.backoff_seconds_min,
            backoff_max=configuration.backoff_seconds_max,
        )
        self._watchers = Watchers(
            self._snapshot, self._queue, self._profiles, self._services.volumes, self._wake_up
        )
        self._wake = trio.Event()
        self._slots = trio.Semaphore(BINDINGS_MAX)
        self._binder = Binder(
            api, host, self._snapshot, self._services, self._slots, self._bound,
            self._watchers.on_pod,
        )  # fmt: skip
        self._start = 0
        self._measures = Measures(scheduler.metrics)
        self._measures.watch_queue(self._queue.count, SHOWN)

    async def watch(self, informers: SharedInformers) -> None:
        await self._watchers.watch(informers)

    async def aclose(self) -> None:
        if self._services.extenders is not None:
            with trio.CancelScope(shield=True):
                await self._services.extenders.aclose()

    async def schedule(self) -> None:
        while True:
            await self._slots.acquire()
            info = self._queue.pop(trio.current_time())
            if info is not None:
                await self._schedule_one(_Attempt(info, self._profiles[info.scheduler_name]))
                continue
            self._slots.release()
            self._wake = trio.Event()
            with trio.CancelScope(deadline=self._queue.next_due()):
                await self._wake.wait()

    async def flush(self) -> None:
        while True:
            await trio.sleep(FLUSH_SECONDS)
            self._queue.flush_unschedulable(trio.current_time())
            self._wake_up()

    def _wake_up(self) -> None:
        self._wake.set()

    def _activate(self, pod_uid: str, gated_only: bool) -> None:
        if self._queue.activate(pod_uid, trio.current_time(), gated_only=gated_only):
            self._wake_up()

    # One pod.

    async def _schedule_one(self, attempt: _Attempt) -> None:
        """Decide for the pod in hand; the binding or the refusal is written in a task of its own,
        which holds the slot that the caller has acquired. Waits for nobody but extenders."""
        info, profile = attempt.info, attempt.profile
        try:
            decision = await self._decide(info, profile)
        except ExtenderFailed as error:
            self._fail(attempt, str(error))
            return
        count = len(self._snapshot.nodes)
        if count:
            self._start = (self._start + decision.looked_at) % count
        if not decision.node:
            await self._find_room(attempt, decision)
            return
        self._snapshot.withdraw(info)
        self._snapshot.assume(info, decision.node)
        held = self._binder.reserve(info, profile)
        if isinstance(held, tuple):
            rejection, plugin = held
            self._snapshot.forget(info)
            message = f"0/{count} nodes are available: {', '.join(rejection.reasons)}."
            self._refuse(attempt, Decision("", message, (plugin,)), PostFilterResult(None))
            return
        self._nursery.start_soon(self._binder.run, info, profile, held)
        self._count(attempt, "scheduled")

    async def _decide(self, info: PodInfo, profile: Profile) -> Decision:
        """Raises ExtenderFailed."""
        feasible = find_feasible(info, self._snapshot, self._start, profile)
        extenders, more = self._services.extenders, {}
        if extenders is not None and feasible.nodes and extenders.care(info):
            await extenders.filter(info, feasible)
            if len(feasible.nodes) > 1:
                more = await extenders.prioritize(info, feasible)
            self._forget_gone(feasible)
        if not feasible.nodes:
            return feasible.failure(len(self._snapshot.nodes))
        return choose(info, self._snapshot, feasible, self._host.rng, profile, more)

    def _forget_gone(self, feasible: Feasible) -> None:
        """Nodes that went while extenders thought about them."""
        both = zip(feasible.nodes, feasible.totals, strict=True)
        left = [each for each in both if self._snapshot.node(each[0].name) is not None]
        feasible.nodes = [node for node, _ in left]
        feasible.totals = [total for _, total in left]

    async def _find_room(self, attempt: _Attempt, decision: Decision) -> None:
        """No node passes: perhaps a plugin can do something about it."""
        reasons: list[str] = []
        node: str | None = None
        for plugin in attempt.profile.post_filters:
            answer = plugin.post_filter(attempt.info, decision)
            result = await answer if inspect.isawaitable(answer) else answer
            if result.made_room:
                self._measures.preemptions.add()
                self._refuse(attempt, decision, result)
                return
            node = result.node if result.node is not None else node
            if result.message:
                reasons.append(result.message)
        self._refuse(attempt, decision, PostFilterResult(node, ", ".join(reasons)))

    def _refuse(self, attempt: _Attempt, decision: Decision, result: PostFilterResult) -> None:
        info = attempt.info
        if result.node is not None and self._queue.get(info.uid) is not None:
            self._snapshot.nominate(info, result.node)
        self._queue.set_unschedulable(info.uid, decision.plugins, trio.current_time())
        for plugin in decision.plugins:
            self._measures.unschedulable.add(plugin, attempt.profile.scheduler_name)
        self._count(attempt, "unschedulable")
        message = f"{decision.message} {result.message}".rstrip()
        self._nursery.start_soon(self._write_refusal, info, message, result)

    def _fail(self, attempt: _Attempt, message: str) -> None:
        """Something outside did not work; the pod is tried again after its back-off."""
        self._queue.set_failed(attempt.info.uid, trio.current_time())
        self._count(attempt, "error")
        result = PostFilterResult(None)
        self._nursery.start_soon(
            self._write_refusal, attempt.info, message, result, "SchedulerError"
        )

    def _count(self, attempt: _Attempt, result: str) -> None:
        own = attempt.profile.scheduler_name
        self._measures.attempts.add(own, result)
        took = trio.current_time() - attempt.started
        self._measures.attempt_seconds.observe(took, own, result)

    def _bound(self, info: PodInfo, node: str, error: Exception | None) -> None:
        """A binding has ended."""
        if error is None:
            self._scheduler.bound += 1
            message = f"Successfully assigned {info.key} to {node}"
            self._recorder.event(info.pod, "Normal", "Scheduled", message)
            attempts, added_at = self._queue.waited(info.uid)
            took = trio.current_time() - added_at
            self._measures.pod_seconds.observe(took, str(min(attempts, 16)))
            self._measures.pod_attempts.observe(attempts)
            self._watchers.leave_queue(info.uid)
            return
        self._snapshot.forget(info)
        if isinstance(error, PodGone):
            self._watchers.leave_queue(info.uid)
        else:
            message = f"Binding rejected: {error}"
            self._recorder.event(info.pod, "Warning", "FailedScheduling", message)
            self._queue.set_failed(info.uid, trio.current_time())
        self._watchers.on_change(Change(ASSIGNED_POD, Action.DELETE, info.pod, None))
        self._wake_up()

    # Written on the side.

    async def _write_refusal(
        self, info: PodInfo, message: str, result: PostFilterResult, reason: str = "Unschedulable"
    ) -> None:
        try:
            self._recorder.event(info.pod, "Warning", "FailedScheduling", message)
            await self._write_condition(info, message, result.node, reason)
        except REQUEST_ERRORS as error:
            log.info("pod=%s status not written error=%s", info.key, error)
        finally:
            try:
                if result.work is not None:
                    await result.work()
            finally:
                self._slots.release()

    async def _write_condition(
        self, info: PodInfo, message: str, nominated: str | None, reason: str
    ) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": format_time(self._host.now()),
        }
        status = info.pod.get("status") or {}
        old = get_condition(info.pod, "PodScheduled")
        nominates = nominated is not None and nominated != (status.get("nominatedNodeName") or "")
        if old is not None and old.get("status") == "False":
            condition["lastTransitionTime"] = old.get("lastTransitionTime")
            if old.get("message") == message and old.get("reason") == reason and not nominates:
                return
        others = [c for c in status.get("conditions") or () if c["type"] != "PodScheduled"]
        patch: Obj = {
            "metadata": {"uid": info.uid},
            "status": {"conditions": [*others, condition]},
        }
        if nominates:
            patch["status"]["nominatedNodeName"] = nominated or None
        await self._api.patch(PODS, name(info.pod), info.namespace, patch, subresource="status")
