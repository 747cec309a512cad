"""What every controller must survive: one scenario, run in calm and in each kind of storm.

A scenario must come out the same whether watch events are lost, late or doubled, whether each
write meets a conflict, fails or loses its answer, and wherever the manager is killed; and no
object may be made more often than in calm.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from unittest import mock

import trio
from attrs import field, frozen

from k8slite.api.kinds import EVENTS, LEASES, NODES, PODS, Kind
from k8slite.api.status import conflict, service_unavailable
from k8slite.client.client import ClientConfig
from k8slite.client.errors import UnknownOutcome
from k8slite.controllers.context import ControllerTimings
from k8slite.controllers.manager import ControllerManagerConfig, run_controllers
from k8slite.controllers.storage import volume_provisioner
from raftkv.host import Address
from tests.client.fake_api import FakeApi
from tests.controllers.world import Cluster

__all__ = ["STORMS", "Result", "Scenario", "crash_points", "run_scenario"]

READS = ("get", "list", "watch")


@frozen(kw_only=True)
class Scenario:
    """`arrange` makes the objects, `act` changes them after a while; `outcome` is what counts.

    `made_twice`: kinds whose objects may be made again by design.
    """

    name: str
    controllers: tuple[str, ...]
    arrange: Callable[[FakeApi], None]
    outcome: Callable[[FakeApi], Any]
    act: Callable[[FakeApi], object] | None = None
    settle_seconds: float = 60.0
    pods: bool = False
    made_twice: tuple[Kind, ...] = ()
    config: dict[str, Any] = field(factory=dict)
    timings: dict[str, float] = field(factory=dict)


@frozen
class Result:
    """What came out, how many objects of each kind were made, and how many writes it took."""

    outcome: Any
    made: dict[str, int]
    writes: int


Storm = Callable[[FakeApi, random.Random], None]


def calm(api: FakeApi, rng: random.Random) -> None:
    """Nothing happens."""


def late(api: FakeApi, rng: random.Random) -> None:
    """Each event comes up to two seconds late: caches are stale."""
    api.event_delay = lambda: rng.random() * 2


def doubled(api: FakeApi, rng: random.Random) -> None:
    """Each event comes twice."""
    api.double_events = True


def lost(api: FakeApi, rng: random.Random) -> None:
    """Watches are slow and break all the time; mostly only a fresh list tells what they missed."""
    api.event_delay = lambda: rng.random()


def conflicts(api: FakeApi, rng: random.Random) -> None:
    """Every update and patch meets a conflict the first time; deletions, which carry a uid and no
    resourceVersion, meet none."""
    met: dict[tuple[str, str, str], None] = {}

    def fault(verb: str, kind: Kind, key: str) -> BaseException | None:
        asked = (verb, kind.resource, key)
        if verb in (*READS, "create", "delete") or kind is EVENTS or asked in met:
            return None
        met[asked] = None
        return conflict(kind, key)

    api.fault = fault


def failures(api: FakeApi, rng: random.Random) -> None:
    """A third of the writes fails before it is executed, a fifth after."""

    def before(verb: str, kind: Kind, key: str) -> BaseException | None:
        fails = verb not in READS and kind is not EVENTS and rng.random() < 0.3
        return service_unavailable("storm") if fails else None

    def after(verb: str, kind: Kind, key: str) -> BaseException | None:
        fails = kind is not EVENTS and rng.random() < 0.2
        return UnknownOutcome(f"{verb} {key}: storm") if fails else None

    api.fault, api.lose_answers = before, after


STORMS: dict[str, Storm] = {
    storm.__name__: storm for storm in (calm, late, doubled, lost, conflicts, failures)
}


async def run_scenario(
    scenario: Scenario, storm: Storm = calm, *, crash_after: int = 0, seed: int = 0
) -> Result:
    """Run it; with `crash_after`, the manager is killed right after that many of its writes."""
    cluster = Cluster(seed)
    api, rng = cluster.api, random.Random(seed)
    config = ControllerManagerConfig(
        client=ClientConfig(endpoints=(Address("unused", 1),)),
        identity="test",
        timings=ControllerTimings(**scenario.timings),  # type: ignore[arg-type]  # all are numbers
        controllers=scenario.controllers,
        **{"root_ca": "PEM", **scenario.config},
    )
    scope = trio.CancelScope()
    writes = 0

    def count(verb: str, kind: Kind, key: str) -> BaseException | None:
        nonlocal writes
        if kind in (EVENTS, LEASES):
            return None
        writes += 1
        if writes == crash_after:
            scope.cancel()
        return None

    api.lose_answers = count
    scenario.arrange(api)
    before = len(api.journal)
    storm(api, rng)
    at_once_files = mock.patch.object(volume_provisioner, "in_thread", _at_once)
    with at_once_files:
        async with trio.open_nursery() as nursery:
            if scenario.pods:
                # The little kubelet sees everything: it is the controllers that are tested.
                nursery.start_soon(cluster.run_pods)

            async def manager() -> None:
                nonlocal scope
                while True:
                    with scope:
                        await run_controllers(api, config, cluster.host)
                    await trio.sleep(0.5)
                    scope = trio.CancelScope()

            nursery.start_soon(manager)
            if scenario.act is not None:
                await trio.sleep(scenario.settle_seconds / 2)
                scenario.act(api)
            await _pass_time(api, rng, scenario.settle_seconds, breaking=storm is lost)
            _clear_sky(api)
            api.break_watches(compact=True)
            await trio.sleep(scenario.settle_seconds)
            outcome = scenario.outcome(api)
            nursery.cancel_scope.cancel()
    made: dict[str, int] = {}
    for _, kind, event, _obj in api.journal[before:]:
        counted = kind not in (EVENTS, NODES, *scenario.made_twice)
        if event == "ADDED" and counted:
            made[kind.resource] = made.get(kind.resource, 0) + 1
    return Result(outcome, made, writes)


async def _at_once(function: Callable[..., None], *args: Any) -> None:
    function(*args)


async def _pass_time(api: FakeApi, rng: random.Random, seconds: float, *, breaking: bool) -> None:
    if not breaking:
        await trio.sleep(seconds)
        return
    for _ in range(30):
        await trio.sleep(seconds / 30)
        api.break_watches(compact=rng.random() < 0.7)


def _clear_sky(api: FakeApi) -> None:
    api.fault = api.lose_answers = api.event_delay = None
    api.double_events = False


async def crash_points(scenario: Scenario) -> tuple[Result, list[tuple[int, Result]]]:
    """The calm result, and that of a crash after each single write."""
    expected = await run_scenario(scenario)
    results = []
    for number in range(1, expected.writes + 1):
        results.append((number, await run_scenario(scenario, crash_after=number)))
    return expected, results


def pods_of(api: FakeApi) -> list[tuple[str, str]]:
    """Pods by what they run and whether they are up: names are random."""
    return sorted(
        (p["spec"]["containers"][0]["image"], (p.get("status") or {}).get("phase", ""))
        for p in api.all(PODS)
    )
