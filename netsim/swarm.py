"""Fault plans drawn from a seed: which faults, when, for how long, on whom.

A run has two phases. In the safety phase `carry_out` lets every fault of the plan happen, and
checkers watch. In the liveness phase `core_only` heals a random majority of the hosts, and only it:
the others stay cut off, half cut off, stopped or dead, and the core must make progress all the
same. (That is TigerBeetle's way: "everything heals" hides livelocks that one mute member causes.)

Each seed enables some kinds of faults only, so that rare combinations come up. A plan is a list of
plain tuples: a failure can be cut down by leaving faults out.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import NamedTuple

import trio

from netsim.world import World

__all__ = ["CHIEF", "FAULT_KINDS", "Fault", "carry_out", "core_only", "draw_plan"]

CHIEF = "*"
"""Among the hosts of a fault: whichever is the most important one when it strikes."""


class Fault(NamedTuple):
    """One fault: from `at`, for `seconds`, on `hosts` (and against `others`), that strong."""

    kind: str
    at: float
    seconds: float
    hosts: tuple[str, ...]
    others: tuple[str, ...]
    amount: float


@asynccontextmanager
async def _crash(world: World, fault: Fault) -> AsyncIterator[None]:
    for host in fault.hosts:
        world.crash(host, power=fault.kind == "power_loss")
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            for host in fault.hosts:
                await world.restart(host)


@contextmanager
def _pause(world: World, fault: Fault) -> Iterator[None]:
    for host in fault.hosts:
        world.pause(host)
    try:
        yield
    finally:
        for host in fault.hosts:
            world.resume(host)


@contextmanager
def _clock(world: World, fault: Fault) -> Iterator[None]:
    for host in fault.hosts:
        world.hosts[host].clock_offset += fault.amount * 100 - 50
    yield


@contextmanager
def _network(world: World, fault: Fault) -> Iterator[None]:
    hosts, others = fault.hosts, fault.others
    with ExitStack() as stack:
        match fault.kind:
            case "isolate":
                for host in hosts:
                    stack.enter_context(world.isolate(host))
            case "partition":
                stack.enter_context(world.partition(hosts, others))
            case "deaf":
                stack.enter_context(world.one_way(others, hosts))
            case "mute":
                stack.enter_context(world.one_way(hosts, others))
            case "loss":
                stack.enter_context(world.drop(hosts, others, fault.amount * 0.3))
                stack.enter_context(world.drop(others, hosts, fault.amount * 0.3))
            case "delay":
                seconds = fault.amount * 0.4
                stack.enter_context(world.delay(hosts, others, seconds, seconds))
            case "narrow":
                bandwidth = 2_000 + fault.amount * 50_000
                stack.enter_context(world.narrow(hosts, others, bandwidth))
                stack.enter_context(world.narrow(others, hosts, bandwidth))
        yield


@contextmanager
def _resets(world: World, fault: Fault) -> Iterator[None]:
    for host in fault.hosts:
        for other in fault.others:
            world.reset_connections(host, other)
    yield


@contextmanager
def _disk(world: World, fault: Fault) -> Iterator[None]:
    with ExitStack() as stack:
        for host in fault.hosts:
            match fault.kind:
                case "slow_disk":
                    stack.enter_context(world.slow_disk(host, fault.amount * 0.3))
                case "hung_disk":
                    stack.enter_context(world.hung_disk(host))
                case "sync_errors":
                    stack.enter_context(world.sync_errors(host))
                case "full_disk":
                    stack.enter_context(world.full_disk(host))
        yield
    if fault.kind == "sync_errors":
        # The disk is well again; what its page cache says it is, only a reboot can tell.
        for host in fault.hosts:
            world.crash(host)


@asynccontextmanager
async def _flapping(world: World, fault: Fault) -> AsyncIterator[None]:
    async def flap() -> None:
        while True:
            with world.partition(fault.hosts, fault.others):
                await trio.sleep(0.2 + fault.amount)
            await trio.sleep(0.2 + fault.amount)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flap)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


FAULT_KINDS: tuple[str, ...] = (
    "power_loss",
    "kill",
    "pause",
    "clock",
    "isolate",
    "partition",
    "deaf",
    "mute",
    "loss",
    "delay",
    "narrow",
    "flapping",
    "reset",
    "slow_disk",
    "hung_disk",
    "sync_errors",
    "full_disk",
)
_CRASHES = ("power_loss", "kill")
_DISKS = ("slow_disk", "hung_disk", "sync_errors", "full_disk")
_NETWORK = ("isolate", "partition", "deaf", "mute", "loss", "delay", "narrow")


def draw_plan(
    rng: random.Random,
    hosts: Sequence[str],
    others: Sequence[str],
    seconds: float,
    *,
    kinds: Sequence[str] = FAULT_KINDS,
    faults_max: int = 12,
    chief: float = 0.0,
) -> list[Fault]:
    """Faults on `hosts` within `seconds`, by time; `others` are cut off from them now and then,
    and suffer nothing else. `chief`: which part of the faults is for CHIEF."""
    enabled = rng.sample(list(kinds), rng.randrange(1, len(kinds) + 1))
    plan = []
    for _ in range(rng.randrange(1, faults_max + 1)):
        kind = rng.choice(enabled)
        struck = rng.sample(list(hosts), _how_many(rng, len(hosts)))
        rest = [host for host in hosts if host not in struck]
        if rng.random() < 0.5 or not rest:
            rest += others
        if chief and rng.random() < chief:
            struck, rest = [CHIEF], [*hosts, *others]
        length = rng.choice((0.0, rng.random(), rng.random() * seconds / 2))
        fault = Fault(
            kind,
            round(rng.random() * seconds, 3),
            round(length, 3),
            tuple(struck),
            tuple(rest),
            round(rng.random(), 3),
        )
        plan.append(fault)
    return sorted(plan, key=lambda fault: fault.at)


def _how_many(rng: random.Random, hosts: int) -> int:
    """Mostly one; sometimes a minority, a majority, all."""
    return 1 if rng.random() < 0.6 else rng.randrange(1, hosts + 1)


async def carry_out(
    world: World, plan: Sequence[Fault], chief: Callable[[], str | None] = lambda: None
) -> None:
    """Let the faults happen; returns when the last one is over. `chief` tells which host is meant
    by CHIEF; where there is none, nothing happens."""
    begin = trio.current_time()

    async def happen(fault: Fault) -> None:
        await trio.sleep_until(begin + fault.at)
        if CHIEF in fault.hosts:
            host = chief()
            if host is None:
                return
            others = tuple(other for other in fault.others if other != host)
            fault = fault._replace(hosts=(host,), others=others)
        world.note(f"fault {fault.kind} {fault.hosts} {fault.others} for {fault.seconds}")
        await _strike(world, fault)

    async with trio.open_nursery() as nursery:
        for fault in plan:
            nursery.start_soon(happen, fault)


async def _strike(world: World, fault: Fault) -> None:
    if fault.kind in _CRASHES:
        async with _crash(world, fault):
            await trio.sleep(fault.seconds)
    elif fault.kind == "flapping":
        async with _flapping(world, fault):
            await trio.sleep(fault.seconds)
    else:
        with _HANDLERS[fault.kind](world, fault):
            await trio.sleep(fault.seconds)
    if fault.kind in _DISKS:
        for host in fault.hosts:
            await world.restart(host)


_HANDLERS: dict[str, Callable[[World, Fault], AbstractContextManager[None]]] = {
    "pause": _pause,
    "clock": _clock,
    "reset": _resets,
    **dict.fromkeys(_NETWORK, _network),
    **dict.fromkeys(_DISKS, _disk),
}


@asynccontextmanager
async def core_only(
    world: World, rng: random.Random, hosts: Sequence[str], lost: Sequence[str] = ()
) -> AsyncIterator[list[str]]:
    """Heal a random majority of `hosts`, leave the others in some misery; gives the majority.

    `lost`: a minority that can't be healed.
    """
    sound = [host for host in hosts if host not in lost]
    core = sorted(rng.sample(sound, rng.randrange(len(hosts) // 2 + 1, len(sound) + 1)))
    world.note(f"core {core}")
    for host in core:
        world.resume(host)
        await world.restart(host)
    with ExitStack() as stack:
        for host in hosts:
            if host not in core:
                others = [other for other in world.hosts if other != host]
                match rng.randrange(5):
                    case 0:
                        world.crash(host)
                    case 1:
                        await world.restart(host)
                        stack.enter_context(world.isolate(host))
                    case 2:
                        await world.restart(host)
                        stack.enter_context(world.one_way(others, host))
                    case 3:
                        await world.restart(host)
                        stack.enter_context(world.one_way(host, others))
                    case _:
                        world.pause(host)
                        stack.callback(world.resume, host)
        yield core
