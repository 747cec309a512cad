"""plan() by tables: what is asked for, given what runs."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.backoff import Backoff
from k8slite.kubelet.plan import (
    CreateSandbox,
    Failure,
    Health,
    KillContainer,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopSandbox,
    Waiting,
    backoff_key,
    plan,
)
from k8slite.kubelet.pods import Observed, spec_hash
from k8slite.kubelet.runtime.interface import ContainerState, ContainerStatus, SandboxStatus
from tests.kubelet.world import container, pod

NOW = 1000.0


def sandbox(number: int = 0, *, ready: bool = True) -> SandboxStatus:
    return SandboxStatus(f"s{number}", "u", "default", "p", number, ready, 1.0 + number, "10.0.0.1")


def running(name: str = "c", attempt: int = 0, where: str = "s0", **more: Any) -> ContainerStatus:
    return ContainerStatus(
        id=f"{name}{attempt}",
        sandbox_id=where,
        pod_uid="u",
        name=name,
        attempt=attempt,
        state=ContainerState.RUNNING,
        image="busybox",
        image_id="i",
        created_at=10.0 + attempt,
        started_at=11.0 + attempt,
        **more,
    )


def exited(
    name: str = "c", attempt: int = 0, code: int = 1, where: str = "s0", at: float = 900.0
) -> ContainerStatus:
    return attrs.evolve(
        running(name, attempt, where),
        state=ContainerState.EXITED,
        exit_code=code,
        finished_at=at,
    )


def created(name: str = "c", attempt: int = 0) -> ContainerStatus:
    return attrs.evolve(running(name, attempt), state=ContainerState.CREATED, started_at=0.0)


def observe(*containers: ContainerStatus, sandboxes: Any = None) -> Observed:
    return Observed((sandbox(),) if sandboxes is None else tuple(sandboxes), containers)


def actions(made_pod: Obj, observed: Observed, **more: Any) -> list[Any]:
    given: dict[str, Any] = {
        "now": NOW,
        "backoff": Backoff(),
        "failures": {},
        "health": Health(),
        **more,
    }
    return list(plan(made_pod, observed, **given).actions)


ALWAYS = pod(uid="u")
NEVER = pod(uid="u", restartPolicy="Never")
ON_FAILURE = pod(uid="u", restartPolicy="OnFailure")
TWO = pod(uid="u", containers=[container("a"), container("b")])
INIT = pod(uid="u", initContainers=[container("i"), container("j")])
INIT_NEVER = pod(uid="u", initContainers=[container("i")], restartPolicy="Never")
SIDE = pod(uid="u", initContainers=[container("s", restartPolicy="Always"), container("i")])
DEAD = (sandbox(ready=False),)

CASES: dict[str, tuple[Obj, Observed, list[Any]]] = {
    "nothing yet": (ALWAYS, Observed(), [CreateSandbox(0)]),
    "a sandbox": (ALWAYS, observe(), [StartContainer("c", 0)]),
    "all at once": (TWO, observe(), [StartContainer("a", 0), StartContainer("b", 0)]),
    "it runs": (ALWAYS, observe(running()), []),
    "it ended": (ALWAYS, observe(exited(code=0)), [StartContainer("c", 1)]),
    "it failed": (ALWAYS, observe(exited()), [StartContainer("c", 1)]),
    "it failed, never": (NEVER, observe(exited()), []),
    "it ended, on failure": (ON_FAILURE, observe(exited(code=0)), []),
    "it failed, on failure": (ON_FAILURE, observe(exited()), [StartContainer("c", 1)]),
    "one of two": (TWO, observe(running("a"), exited("b")), [StartContainer("b", 1)]),
    "made but not started": (
        ALWAYS,
        observe(created(attempt=3)),
        [RemoveContainer("c3"), StartContainer("c", 3)],
    ),
    "the last two are kept": (
        ALWAYS,
        observe(*(exited(attempt=n) for n in range(4))),
        [RemoveContainer("c1"), RemoveContainer("c0"), StartContainer("c", 4)],
    ),
    "sandbox dead": (
        ALWAYS,
        observe(running(), sandboxes=DEAD),
        [KillContainer("c0", "c", "Pod sandbox changed"), StopSandbox("s0"), CreateSandbox(1)],
    ),
    "sandbox dead, never": (NEVER, observe(exited(), sandboxes=DEAD), []),
    "sandbox dead, never, not begun": (
        NEVER,
        observe(sandboxes=DEAD),
        [StopSandbox("s0"), CreateSandbox(1)],
    ),
    "sandbox dead, done": (ON_FAILURE, observe(exited(code=0), sandboxes=DEAD), []),
    "after a new sandbox": (
        ALWAYS,
        observe(exited(), sandboxes=(sandbox(1), sandbox(0, ready=False))),
        [StartContainer("c", 1)],
    ),
    "an empty old sandbox goes": (
        ALWAYS,
        observe(running(where="s1"), sandboxes=(sandbox(1), sandbox(0, ready=False))),
        [RemoveSandbox("s0")],
    ),
    "first init": (INIT, observe(), [StartContainer("i", 0)]),
    "init runs": (INIT, observe(running("i")), []),
    "second init": (INIT, observe(exited("i", code=0)), [StartContainer("j", 0)]),
    "init failed": (INIT, observe(exited("i")), [StartContainer("i", 1)]),
    "init failed, never": (INIT_NEVER, observe(exited("i")), []),
    "init done": (
        INIT,
        observe(exited("i", code=0), exited("j", code=0)),
        [StartContainer("c", 0)],
    ),
    "init again in a new sandbox": (
        INIT,
        observe(
            exited("i", code=0),
            exited("j", code=0),
            exited(),
            sandboxes=(sandbox(1), sandbox(0, ready=False)),
        ),
        [StartContainer("i", 1)],
    ),
    "init is not repeated": (
        INIT,
        observe(exited("i", code=0), exited("j", code=0), exited()),
        [StartContainer("c", 1)],
    ),
    "sidecar first": (SIDE, observe(), [StartContainer("s", 0)]),
    "sidecar not started": (SIDE, observe(running("s")), []),
}


@pytest.mark.parametrize("name", CASES)
def test_plan(name: str) -> None:
    made_pod, observed, expected = CASES[name]
    assert actions(made_pod, observed) == expected


def test_a_started_sidecar_lets_the_others_begin_and_is_restarted() -> None:
    started = Health(started=frozenset({"s0"}))
    assert actions(SIDE, observe(running("s")), health=started) == [StartContainer("i", 0)]
    done = observe(running("s"), exited("i", code=0))
    assert actions(SIDE, done, health=started) == [StartContainer("c", 0)]
    later = observe(exited("s", code=0), exited("i", code=0), running())
    assert actions(SIDE, later) == [StartContainer("s", 1)]


def test_ephemeral_containers_start_once_beside_whatever_else() -> None:
    added = pod(initContainers=[container("i")], ephemeralContainers=[container("e")])
    begun = actions(added, observe(running("i")))
    assert begun == [StartContainer("e", 0)]
    assert actions(added, observe(running("i"), exited("e"))) == []
    assert actions(added, observe(running("i"), running("e"))) == []


def test_probes_kill() -> None:
    for health, word in (
        (Health(failed_liveness=frozenset({"c0"})), "liveness"),
        (Health(failed_startup=frozenset({"c0"})), "startup"),
    ):
        text = f"Container c failed {word} probe, will be restarted"
        assert actions(ALWAYS, observe(running()), health=health) == [
            KillContainer("c0", "c", text)
        ]


def test_a_changed_image_restarts() -> None:
    same = running(spec_hash=spec_hash(ALWAYS["spec"]["containers"][0]))
    assert actions(ALWAYS, observe(same)) == []
    other = running(spec_hash="other")
    text = "Container c definition changed, will be restarted"
    assert actions(ALWAYS, observe(other)) == [KillContainer("c0", "c", text)]


def test_back_off_waits_and_says_so() -> None:
    backoff = Backoff()
    key = backoff_key(ALWAYS, ALWAYS["spec"]["containers"][0])
    backoff.tried(key, 900, 900)
    backoff.tried(key, 950, 950)
    given: dict[str, Any] = {"backoff": backoff, "failures": {}, "health": Health()}
    made = plan(ALWAYS, observe(exited(at=995)), now=NOW, **given)
    assert made.actions == ()
    assert made.wake_at == 1015
    message = "back-off 20s restarting failed container=c pod=p_default(u)"
    assert made.waiting == {"c": Waiting("CrashLoopBackOff", message)}
    later = plan(ALWAYS, observe(exited(at=995)), now=1015, **given)
    assert later.actions == (StartContainer("c", 1),)


def test_failures_wait_and_change_their_words() -> None:
    failure = Failure(Waiting("ErrImagePull"), 1010, 1002, Waiting("ImagePullBackOff"))
    given: dict[str, Any] = {"backoff": Backoff(), "failures": {"c": failure}, "health": Health()}
    first = plan(ALWAYS, observe(), now=1001, **given)
    assert (first.waiting["c"].reason, first.wake_at) == ("ErrImagePull", 1002)
    second = plan(ALWAYS, observe(), now=1003, **given)
    assert (second.waiting["c"].reason, second.wake_at) == ("ImagePullBackOff", 1010)
    assert plan(ALWAYS, observe(), now=1010, **given).actions == (StartContainer("c", 0),)


STATES = st.sampled_from(["none", "running", "ok", "failed", "created"])


@given(
    st.sampled_from(["Always", "OnFailure", "Never"]),
    st.lists(STATES, min_size=4, max_size=4),
    st.booleans(),
)
def test_no_container_is_started_twice_and_order_is_kept(
    policy: str, states: list[str], ready: bool
) -> None:
    """A dumb twin of the rules: what may never be asked for, whatever is there."""
    made = pod(
        uid="u",
        restartPolicy=policy,
        initContainers=[container("i"), container("j")],
        containers=[container("a"), container("b")],
    )
    makers: dict[str, Any] = {
        "running": running,
        "ok": lambda name: exited(name, code=0),
        "failed": exited,
        "created": created,
    }
    names = ["i", "j", "a", "b"]
    found = dict(zip(names, states, strict=True))
    there = [makers[s](n) for n, s in found.items() if s != "none"]
    asked = actions(made, observe(*there, sandboxes=(sandbox(ready=ready),)))
    starts = [action.name for action in asked if isinstance(action, StartContainer)]
    assert len(starts) == len(set(starts))
    assert ready or not starts
    for name in starts:
        assert found[name] != "running"
        assert not (found[name] == "ok" and policy != "Always" and name in "ab")
        assert not (found[name] == "failed" and policy == "Never")
    begun = found["a"] != "none" or found["b"] != "none"
    if set(starts) & {"a", "b"} and not begun:
        assert found["i"] == found["j"] == "ok"
    assert len(set(starts) & {"i", "j"}) <= 1
