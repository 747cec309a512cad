"""What to do next about one pod. Pure: the pod, what runs of it, and the time give a list of acts.

The rules are those of the kubelet's computePodActions, cut into steps: the caller carries out what
is asked, looks again and asks again, until nothing is to do before `wake_at`. Ending a pod is not
planned here: a pod that is being deleted or has finished goes to `termination`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.backoff import Backoff
from k8slite.kubelet.pods import (
    Observed,
    containers,
    ephemeral_containers,
    full_name,
    init_containers,
    is_sidecar,
    restart_policy,
    should_restart,
    spec_hash,
)
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus


@attrs.frozen
class CreateSandbox:
    attempt: int


@attrs.frozen
class StopSandbox:
    id: str


@attrs.frozen
class RemoveSandbox:
    id: str


@attrs.frozen
class StartContainer:
    """Pull, create and start. `attempt` becomes the restart count."""

    name: str
    attempt: int


@attrs.frozen
class KillContainer:
    """Stop it because of what `message` says; the next plan decides whether it starts again."""

    id: str
    name: str
    message: str


@attrs.frozen
class RemoveContainer:
    id: str


Action = (
    CreateSandbox | StopSandbox | RemoveSandbox | StartContainer | KillContainer | RemoveContainer
)


@attrs.frozen
class Waiting:
    """Why a container is not being started now, in the words of its status."""

    reason: str
    message: str = ""


@attrs.frozen
class Failure:
    """The last attempt to start a container failed before there was a process.

    Until `retry_at` it is not tried again; from `later_at` on its status says `later`.
    """

    waiting: Waiting
    retry_at: float
    later_at: float = 0.0
    later: Waiting | None = None


@attrs.frozen
class Health:
    """What the probes know, by container id. Absent: no such probe has decided anything yet."""

    failed_liveness: frozenset[str] = frozenset()
    failed_startup: frozenset[str] = frozenset()
    started: frozenset[str] = frozenset()


@attrs.frozen
class Plan:
    """`waiting` by container name; `wake_at` None: nothing to do before something changes."""

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, Waiting] = attrs.field(factory=dict)
    wake_at: float | None = None


@attrs.define
class _Draft:
    """A plan in the making."""

    pod: Obj
    observed: Observed
    now: float
    backoff: Backoff
    failures: Mapping[str, Failure]
    health: Health
    actions: list[Action] = attrs.field(factory=list)
    waiting: dict[str, Waiting] = attrs.field(factory=dict)
    wake_at: float | None = None

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)

    def here(self, status: ContainerStatus | None) -> bool:
        """Whether the container belongs to the sandbox now in use."""
        sandbox = self.observed.sandbox
        return status is not None and sandbox is not None and status.sandbox_id == sandbox.id


def backoff_key(pod: Obj, container: Obj) -> str:
    return f"{pod['metadata']['uid']}/{container['name']}/{spec_hash(container)}"


def plan(
    pod: Obj,
    observed: Observed,
    *,
    now: float,
    backoff: Backoff,
    failures: Mapping[str, Failure],
    health: Health,
) -> Plan:
    """The next acts for a pod that is to run. `backoff` is read, never changed."""
    draft = _Draft(pod, observed, now, backoff, failures, health)
    if observed.sandbox is None:
        _plan_sandbox(draft)
    else:
        _plan_leftovers(draft)
        _plan_ephemeral(draft)
        if _plan_init(draft):
            for container in containers(pod):
                _plan_container(draft, container, restart_policy(pod, container))
    return Plan(tuple(draft.actions), draft.waiting, draft.wake_at)


def _plan_sandbox(draft: _Draft) -> None:
    """No sandbox, or a dead one: what ran in it ends, and a new one is made if there is use."""
    observed, pod = draft.observed, draft.pod
    if not _wants_sandbox(draft):
        return
    failure = draft.failures.get("")
    if failure is not None and failure.retry_at > draft.now:
        draft.wake(failure.retry_at)
        return
    for status in observed.running():
        draft.actions.append(KillContainer(status.id, status.name, "Pod sandbox changed"))
    for sandbox in observed.sandboxes:
        draft.actions.append(StopSandbox(sandbox.id))
    attempt = observed.sandboxes[0].attempt + 1 if observed.sandboxes else 0
    draft.actions.append(CreateSandbox(attempt))
    assert pod["spec"]["containers"], "the API refuses a pod without containers"


def _wants_sandbox(draft: _Draft) -> bool:
    pod, observed = draft.pod, draft.observed
    ran = [observed.latest(container["name"]) for container in containers(pod)]
    if not observed.sandboxes:
        return True
    if restart_policy(pod) == "Never" and any(status is not None for status in ran):
        return False
    return any(
        status is None
        or status.state is not ContainerState.EXITED
        or should_restart(restart_policy(pod, container), status.exit_code)
        for container, status in zip(containers(pod), ran, strict=True)
    )


def _plan_leftovers(draft: _Draft) -> None:
    """Old sandboxes go; of each container the last run and the one before it are kept."""
    observed = draft.observed
    sandbox = observed.sandbox
    assert sandbox is not None, "the caller has looked"
    counts: dict[str, int] = {}
    for status in reversed(observed.containers):
        if status.state is ContainerState.RUNNING:
            if status.sandbox_id != sandbox.id:
                draft.actions.append(KillContainer(status.id, status.name, "Pod sandbox changed"))
            continue
        counts[status.name] = counts.get(status.name, 0) + 1
        if counts[status.name] > 2:
            draft.actions.append(RemoveContainer(status.id))
    kept = {c.sandbox_id for c in observed.containers}
    for old in observed.sandboxes[1:]:
        if old.id not in kept:
            draft.actions.append(RemoveSandbox(old.id))
        elif old.ready:
            draft.actions.append(StopSandbox(old.id))


def _plan_ephemeral(draft: _Draft) -> None:
    """Each is started once, whatever the others do, and never again."""
    for container in ephemeral_containers(draft.pod):
        status = draft.observed.latest(container["name"])
        if status is None:
            _start(draft, container, None)
        elif status.state is ContainerState.CREATED:
            _replace_created(draft, container, status)


def _plan_init(draft: _Draft) -> bool:
    """Init containers in order. True when the pod's own containers may run."""
    observed, pod = draft.observed, draft.pod
    initialized = any(draft.here(observed.latest(c["name"])) for c in containers(pod))
    for container in init_containers(pod):
        status = observed.latest(container["name"])
        if is_sidecar(container):
            _plan_container(draft, container, "Always")
            if initialized:
                continue
            if status is None or not draft.here(status):
                return False
            if status.id not in draft.health.started:
                return False
        elif initialized:
            continue
        elif not draft.here(status):
            _start(draft, container, status)
            return False
        else:
            assert status is not None, "what is here exists"
            if status.state is ContainerState.EXITED and status.exit_code == 0:
                continue
            if status.state is ContainerState.EXITED:
                if restart_policy(pod) != "Never":
                    _start(draft, container, status)
            elif status.state is ContainerState.CREATED:
                _replace_created(draft, container, status)
            return False
    return True


def _plan_container(draft: _Draft, container: Obj, policy: str) -> None:
    status = draft.observed.latest(container["name"])
    if status is None:
        _start(draft, container, None)
    elif status.state is ContainerState.RUNNING:
        reason = _why_kill(draft, container, status)
        if reason:
            draft.actions.append(KillContainer(status.id, status.name, reason))
    elif status.state is ContainerState.CREATED:
        _replace_created(draft, container, status)
    elif should_restart(policy, status.exit_code):
        _start(draft, container, status)


def _why_kill(draft: _Draft, container: Obj, status: ContainerStatus) -> str:
    name = container["name"]
    if status.spec_hash and status.spec_hash != spec_hash(container):
        return f"Container {name} definition changed, will be restarted"
    if status.id in draft.health.failed_liveness:
        return f"Container {name} failed liveness probe, will be restarted"
    if status.id in draft.health.failed_startup:
        return f"Container {name} failed startup probe, will be restarted"
    return ""


def _replace_created(draft: _Draft, container: Obj, status: ContainerStatus) -> None:
    """Made, but never started: a kubelet died in between. Make it again."""
    draft.actions.append(RemoveContainer(status.id))
    _start(draft, container, None, attempt=status.attempt)


def _start(
    draft: _Draft, container: Obj, last: ContainerStatus | None, *, attempt: int = 0
) -> None:
    """Start the container, unless a back-off or a failure says to wait."""
    name = container["name"]
    if last is not None:
        attempt = last.attempt + 1
        key = backoff_key(draft.pod, container)
        until = draft.backoff.wait_until(key, last.finished_at)
        if until > draft.now:
            delay = _duration(draft.backoff.delay(key))
            message = (
                f"back-off {delay} restarting failed container={name} pod={full_name(draft.pod)}"
            )
            draft.waiting[name] = Waiting("CrashLoopBackOff", message)
            draft.wake(until)
            return
    failure = draft.failures.get(name)
    if failure is not None and failure.retry_at > draft.now:
        late = failure.later is not None and failure.later_at <= draft.now
        draft.waiting[name] = failure.later if late and failure.later else failure.waiting
        draft.wake(failure.retry_at if late or failure.later is None else failure.later_at)
        return
    draft.actions.append(StartContainer(name, attempt))


def _duration(seconds: float) -> str:
    """As Go prints it: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s" if rest else f"{seconds:g}s"
