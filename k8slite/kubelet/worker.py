"""One pod on this node, from its first sight to its last: the task that alone changes it.

It looks, plans (`plan`), does what the plan asks, and looks again; when nothing is left it sleeps
until something changes or a back-off ends. A pod that is deleted, finished or no longer in the API
goes through `_end`. Everything it says goes through the status manager.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj, parse_time
from k8slite.api.status import ApiError
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.containers.backoff import Backoff
from k8slite.kubelet.containers.dns import hostname_of
from k8slite.kubelet.containers.messages import termination_message
from k8slite.kubelet.containers.problem import StartProblem
from k8slite.kubelet.containers.resizer import Resizer
from k8slite.kubelet.containers.starter import Starter
from k8slite.kubelet.containers.termination import remove_pod, stop_containers
from k8slite.kubelet.containers.waiting import tell_waiting
from k8slite.kubelet.context import Context
from k8slite.kubelet.plan import (
    Action,
    CreateSandbox,
    Failure,
    KillContainer,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopSandbox,
    Waiting,
    backoff_key,
    plan,
)
from k8slite.kubelet.pods import (
    TERMINAL,
    Observed,
    all_containers,
    find_container,
    grace_seconds,
    phase,
    unsupported,
)
from k8slite.kubelet.probes.machine import ProbeKind
from k8slite.kubelet.probes.manager import ProbeManager
from k8slite.kubelet.runtime.interface import (
    ContainerState,
    RuntimeFailure,
    SandboxConfig,
)
from k8slite.kubelet.status import OWN_FIELDS, Facts, make_status
from k8slite.kubelet.volumes.pod_volumes import PodVolumes, VolumeFailure

log = logging.getLogger(__name__)

CONFIG_RETRY_SECONDS = 10.0
BY_KUBELET = "TerminationByKubelet"
EVICTION_GRACE_SECONDS = 1.0
"""What hard thresholds leave a pod: the node cannot wait."""
DEADLINE = "Pod was active on the node longer than the specified deadline"
ENOUGH = 200  # rounds of planning without a pause: more means that nothing helps
STEP_ERRORS = (RuntimeFailure, OSError, *REQUEST_ERRORS)


@attrs.frozen
class _Ending:
    """`grace` None: the pod's own. `disrupted`: the pod is not to blame."""

    reason: str = ""
    message: str = ""
    grace: float | None = None
    disrupted: bool = False


class PodWorker:
    """`update`, `removed` and `wake` are told from outside; `run` is the task."""

    def __init__(self, context: Context, pod: Obj, *, done: Callable[[str], None]) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._context = context
        self._done = done
        self._wake = trio.Event()
        self._interrupt: trio.CancelScope | None = None
        self._removed = False
        self._volumes = PodVolumes(context)
        self._starter = Starter(context, self._volumes)
        self._resizer = Resizer(context)
        timings = context.config.timings
        self._image_backoff = Backoff(timings.backoff_initial, timings.backoff_max)
        self._failures: dict[str, Failure] = {}
        self._waiting: dict[str, Waiting] = {}
        self._messages: dict[str, str] = {}
        self._last: Obj = {}
        self._tries = 0
        self._volumes_at = 0.0
        self._delete_at = 0.0
        self._ending: _Ending | None = None
        self._probes: ProbeManager | None = None

    # ------------------------------------------------------------ told from outside

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: Obj) -> None:
        """A newer version of the pod."""
        before = self.pod
        self.pod = pod
        self._context.statuses.seen(pod)
        if _deletion(pod) != _deletion(before) and self._interrupt is not None:
            self._interrupt.cancel()  # what is being done may take longer than the pod has
        self.wake()

    def removed(self) -> None:
        """The pod is no longer in the API."""
        self._removed = True
        if self._interrupt is not None:
            self._interrupt.cancel()
        self.wake()

    def reject(self, reason: str, message: str) -> None:
        """The pod may not run here; before `run` only."""
        self._ending = _Ending(reason, f"Pod was rejected: {message}")
        self._context.event(self.pod, "Warning", reason, message)

    def evict(self, reason: str, message: str) -> None:
        """End the pod at once, as Failed."""
        if self._ending is not None:
            return
        self._context.event(self.pod, "Warning", reason, message)
        self._ending = _Ending(reason, message, EVICTION_GRACE_SECONDS, disrupted=True)
        if self._interrupt is not None:
            self._interrupt.cancel()
        self.wake()

    # ------------------------------------------------------------ the task

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._probes = ProbeManager(
                self._context.host,
                self._context.runtime,
                nursery,
                changed=self.wake,
                report=self._report_probe,
            )
            while not self._is_over():
                await self._step(self._sync)
            while not self._removed or not await self._is_gone():
                await self._step(self._end)
            nursery.cancel_scope.cancel()
        self._context.statuses.forget(self.uid)
        for container in all_containers(self.pod):
            self._context.backoff.forget(backoff_key(self.pod, container))
        self._done(self.uid)

    def _is_over(self) -> bool:
        return (
            self._removed
            or self._ending is not None
            or bool(self.pod["metadata"].get("deletionTimestamp"))
            or phase(self.pod) in TERMINAL
            or self._last.get("phase") in TERMINAL
        )

    async def _step(self, work: Callable[[], Awaitable[float | None]]) -> None:
        """Do one round; then wait for a wake-up or the time the round asked for."""
        self._wake = trio.Event()
        wake_at: float | None = None
        with trio.CancelScope() as self._interrupt:
            try:
                wake_at = await work()
            except STEP_ERRORS as error:
                log.warning("pod step failed pod=%s: %s", self._name(), error)
                wake_at = self._context.host.now() + self._retry_delay()
            else:
                self._tries = 0
        interrupted = self._interrupt.cancelled_caught
        self._interrupt = None
        if interrupted:
            return
        # Not all pods of a node at once.
        wait = self._context.config.timings.resync * (0.9 + 0.2 * self._context.host.rng.random())
        if wake_at is not None:
            wait = min(wait, max(0.0, wake_at - self._context.host.now()))
        with trio.move_on_after(wait):
            await self._wake.wait()

    def _retry_delay(self) -> float:
        timings = self._context.config.timings
        self._tries += 1
        return min(timings.retry * 2.0 ** min(self._tries - 1, 16), timings.retry_max)

    def _name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    async def _observe(self) -> Observed:
        runtime = self._context.runtime
        observed = Observed(
            tuple(await runtime.list_pod_sandbox(self.uid)),
            tuple(await runtime.list_containers(self.uid)),
        )
        for status in observed.containers:
            if status.state is ContainerState.EXITED and status.id not in self._messages:
                container = find_container(self.pod, status.name)
                self._messages[status.id] = await termination_message(container, status)
        assert self._probes is not None, "run has made it"
        sandbox = observed.sandboxes[0] if observed.sandboxes else None
        ip = (sandbox.ip if sandbox else "") or self._context.config.node_ip
        self._probes.sync(self.pod, observed.running(), ip)
        return observed

    async def _sync(self) -> float | None:
        """Bring the pod nearer to what it should be; when to look again."""
        assert self._probes is not None, "run has made it"
        if self._past_deadline():
            self._ending = _Ending("DeadlineExceeded", DEADLINE)
            self._context.event(self.pod, "Normal", "DeadlineExceeded", DEADLINE)
            return self._context.host.now()
        for _ in range(ENOUGH):
            observed = await self._observe()
            kills, resize_at = await self._resizer.sync(self.pod, observed)
            for kill in kills:
                await self._kill(kill)
            if kills:
                continue
            made = plan(
                self.pod,
                observed,
                now=self._context.host.now(),
                backoff=self._context.backoff,
                failures=self._failures,
                health=self._probes.health(),
            )
            tell_waiting(self._context, self.pod, self._waiting, made.waiting)
            self._waiting = dict(made.waiting)
            status = self._report(observed)
            if status["phase"] in TERMINAL:
                return self._context.host.now()
            if not made.actions:
                await self._renew_volumes(observed)
                return self._soonest(made.wake_at, resize_at)
            for action in made.actions:
                await self._execute(action, observed)
        log.error("pod does not settle pod=%s", self._name())
        return self._context.host.now() + self._retry_delay()

    def _soonest(self, *wake_at: float | None) -> float | None:
        times = [at for at in (*wake_at, self._deadline()) if at is not None]
        return min(times) if times else None

    def _deadline(self) -> float | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        started: str | None = self._basis()["status"].get("startTime")
        return parse_time(started) + float(seconds) if seconds is not None and started else None

    def _past_deadline(self) -> bool:
        deadline = self._deadline()
        return deadline is not None and deadline <= self._context.host.now()

    # ------------------------------------------------------------ carrying out

    async def _execute(self, action: Action, observed: Observed) -> None:
        runtime, network = self._context.runtime, self._context.network
        match action:
            case CreateSandbox():
                await self._create_sandbox(action.attempt)
            case StopSandbox():
                await runtime.stop_pod_sandbox(action.id, network)
            case RemoveSandbox():
                await runtime.remove_pod_sandbox(action.id)
            case StartContainer():
                await self._start(action, observed)
            case KillContainer():
                await self._kill(action)
            case RemoveContainer():
                await runtime.remove_container(action.id)
                self._messages.pop(action.id, None)

    async def _create_sandbox(self, attempt: int) -> None:
        pod, spec = self.pod, self.pod["spec"]
        try:
            await self._make_volumes("")
        except (VolumeFailure, *REQUEST_ERRORS) as error:
            self._fail_sandbox("FailedMount", str(error))
            return
        config = SandboxConfig(
            pod_uid=self.uid,
            namespace=pod["metadata"]["namespace"],
            name=pod["metadata"]["name"],
            attempt=attempt,
            hostname=hostname_of(pod, self._context.config.node_name),
            host_network=bool(spec.get("hostNetwork")),
            host_pid=bool(spec.get("hostPID")),
            host_ipc=bool(spec.get("hostIPC")),
            share_process_namespace=bool(spec.get("shareProcessNamespace")),
            annotations=dict(pod["metadata"].get("annotations") or {}),
            grace_seconds=grace_seconds(pod),
            sysctls=tuple(
                (entry["name"], entry["value"])
                for entry in (spec.get("securityContext") or {}).get("sysctls") or ()
            ),
        )
        try:
            await self._context.runtime.run_pod_sandbox(config, self._context.network)
        except (RuntimeFailure, OSError) as failure:
            text = f"Failed to create pod sandbox: {failure}"
            self._fail_sandbox("FailedCreatePodSandBox", text)
            return
        self._failures.pop("", None)
        for text in unsupported(pod):
            self._context.event(pod, "Warning", "Unsupported", text)

    def _fail_sandbox(self, reason: str, message: str) -> None:
        self._context.event(self.pod, "Warning", reason, message)
        at = self._context.host.now() + self._retry_delay()
        self._failures[""] = Failure(Waiting("ContainerCreating"), at)

    async def _make_volumes(self, pod_ip: str) -> None:
        await self._volumes.make(self.pod, pod_ip)
        self._volumes_at = self._context.host.now()

    async def _renew_volumes(self, observed: Observed) -> None:
        """ConfigMaps change and tokens expire: bring the files up to date now and then."""
        due = self._volumes_at + self._context.config.timings.resync
        if observed.sandbox is None or self._context.host.now() < due:
            return
        if not self._context.on_disk or not self.pod["spec"].get("volumes"):
            return
        try:
            await self._make_volumes(observed.sandbox.ip)
        except VolumeFailure as failure:
            self._context.event(self.pod, "Warning", "FailedMount", str(failure))
            self._volumes_at = self._context.host.now()

    async def _start(self, action: StartContainer, observed: Observed) -> None:
        granted = self._resizer.granted(self.pod)
        container = find_container(granted, action.name)
        sandbox = observed.sandbox
        assert container is not None, "planned from the specification"
        assert sandbox is not None, "nothing starts without a sandbox"
        now = self._context.host.now()
        last = observed.latest(action.name)
        if last is not None and last.state is ContainerState.EXITED:
            self._context.backoff.tried(backoff_key(self.pod, container), last.finished_at, now)
        if not self._volumes_at:  # adopted by a new kubelet, which has not made them yet
            await self._make_volumes(sandbox.ip)
        try:
            await self._starter.start(granted, container, action.attempt, sandbox)
        except StartProblem as problem:
            self._note_failure(container, problem)
            return
        self._failures.pop(action.name, None)

    def _note_failure(self, container: Obj, problem: StartProblem) -> None:
        name, now = container["name"], self._context.host.now()
        waiting = Waiting(problem.reason, problem.message)
        if problem.reason in ("RunContainerError", "PostStartHookError"):
            return  # there is an exited container to tell it, and its back-off
        if not problem.image:
            self._failures[name] = Failure(waiting, now + CONFIG_RETRY_SECONDS)
            return
        if problem.reason != "ErrImagePull":
            self._failures[name] = Failure(waiting, now + CONFIG_RETRY_SECONDS)
            return
        self._image_backoff.tried(container["image"], now, now)
        delay = self._image_backoff.delay(container["image"])
        text = f'Back-off pulling image "{container["image"]}": ErrImagePull: {problem.message}'
        later = Waiting("ImagePullBackOff", text)
        self._failures[name] = Failure(waiting, now + delay, now + delay / 5, later)

    async def _kill(self, action: KillContainer) -> None:
        assert self._probes is not None, "run has made it"
        self._context.event(self.pod, "Normal", "Killing", action.message, action.name)
        own = self._probes.grace_of(action.id)
        await stop_containers(
            self._context,
            self.pod,
            [await self._context.runtime.container_status(action.id)],
            grace_seconds(self.pod) if own is None else own,
        )

    # ------------------------------------------------------------ saying

    def _report_probe(self, container: Obj, kind: ProbeKind, text: str) -> None:
        self._context.event(self.pod, "Warning", "Unhealthy", text, container["name"])

    def _basis(self) -> Obj:
        """The pod with the status we last gave it, which the API may not show yet."""
        status = dict(self.pod.get("status") or {})
        if status.get("phase") not in TERMINAL:
            for field in OWN_FIELDS:
                if field != "conditions" and field in self._last:
                    status[field] = self._last[field]
        ours = {c["type"]: c for c in self._last.get("conditions") or ()}
        theirs = [c for c in status.get("conditions") or () if c["type"] not in ours]
        status["conditions"] = [*theirs, *ours.values()]
        return self._resizer.granted({**self.pod, "status": status})

    def _report(self, observed: Observed, *, ending: bool = False) -> Obj:
        assert self._probes is not None, "run has made it"
        ended = self._ending or _Ending()
        facts = Facts(
            now=self._context.host.now(),
            host_ip=self._context.config.node_ip,
            runtime=self._context.runtime.name,
            waiting={} if ending else self._waiting,
            ready=self._probes.ready(),
            started=self._probes.health().started,
            messages=self._messages,
            ending=ending,
            reason=ended.reason,
            message=ended.message,
            special={
                **self._resizer.conditions,
                **({"DisruptionTarget": (BY_KUBELET, ended.message)} if ended.disrupted else {}),
            },
        )
        status = make_status(self._basis(), observed, facts)
        statuses = self._context.statuses
        if not self._removed and (status != self._last or statuses.differs(self.uid, status)):
            statuses.set(self.pod, status)
        self._last = status
        return status

    # ------------------------------------------------------------ ending

    async def _end(self) -> float | None:
        """One round of ending: containers, sandbox, volumes, last status, and the object itself."""
        assert self._probes is not None, "run has made it"
        self._probes.stop(ProbeKind.LIVENESS, ProbeKind.STARTUP)
        observed = await self._observe()
        self._waiting = {}
        self._report(observed)
        await stop_containers(
            self._context, self.pod, observed.running(), self._grace_left(), tell=True
        )
        network, runtime = self._context.network, self._context.runtime
        for sandbox in await runtime.list_pod_sandbox(self.uid):
            if sandbox.ready:
                await runtime.stop_pod_sandbox(sandbox.id, network)
        observed = await self._observe()
        if self._removed:
            await remove_pod(self._context, self.pod)
            return self._context.host.now()
        self._report(observed, ending=True)
        if self.pod["metadata"].get("deletionTimestamp"):
            await self._context.statuses.flush(self.uid)
            now = self._context.host.now()
            if not self._removed and now >= self._delete_at:  # a finalizer may hold it for long
                await self._delete()
                self._delete_at = now + self._context.config.timings.retry_max
            return self._delete_at
        return None

    def _grace_left(self) -> float:
        if self._ending is not None and self._ending.grace is not None:
            return self._ending.grace
        grace = grace_seconds(self.pod)
        asked = self.pod["metadata"].get("deletionTimestamp")
        if not asked or self._removed:
            return grace
        # The timestamp is when the grace period ends; clocks may differ, so never more than it.
        left = parse_time(asked) - self._context.host.now()
        return max(0.0 if grace == 0 else 1.0, min(float(grace), left + 1.0))

    async def _delete(self) -> None:
        meta = self.pod["metadata"]
        try:
            await self._context.api.delete(
                PODS, meta["name"], meta["namespace"], grace_period_seconds=0, uid=self.uid
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def _is_gone(self) -> bool:
        runtime = self._context.runtime
        left = await runtime.list_pod_sandbox(self.uid) or await runtime.list_containers(self.uid)
        return not left


def _deletion(pod: Obj) -> tuple[str | None, int | None]:
    meta = pod["metadata"]
    return meta.get("deletionTimestamp"), meta.get("deletionGracePeriodSeconds")
