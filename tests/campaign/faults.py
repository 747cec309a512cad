"""What is done to real members: a table of faults, each of which undoes itself.

Every fault bounds its damage: it ends after some seconds, and of the processes no more than a
minority is down or stopped at the same time.
"""

from __future__ import annotations

import contextlib
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from tests.campaign.members import Process, RealMembers

__all__ = ["FAULTS", "inflict"]

Fault = Callable[[RealMembers, random.Random, Process], Awaitable[None]]


async def _kill(members: RealMembers, rng: random.Random, victim: Process) -> None:
    await victim.end(signal.SIGKILL)
    await trio.sleep(rng.choice((0, 0.5, 3)))
    victim.start()


async def _restart(members: RealMembers, rng: random.Random, victim: Process) -> None:
    await victim.end(signal.SIGTERM)
    victim.start()


async def _pause(members: RealMembers, rng: random.Random, victim: Process) -> None:
    victim.send(signal.SIGSTOP)
    try:
        await trio.sleep(rng.choice((0.3, 2, 6)))
    finally:
        victim.send(signal.SIGCONT)


async def _isolate(members: RealMembers, rng: random.Random, victim: Process) -> None:
    with members.relay.isolate(victim.name):
        await trio.sleep(rng.choice((1, 4)))


async def _one_way(members: RealMembers, rng: random.Random, victim: Process) -> None:
    """It hears the others, and they don't hear it; or the other way round."""
    others = [name for name in members.names if name != victim.name]
    ends = (victim.name, others) if rng.random() < 0.5 else (others, victim.name)
    with members.relay.one_way(*ends):
        await trio.sleep(rng.choice((1, 4)))


async def _slow_links(members: RealMembers, rng: random.Random, victim: Process) -> None:
    others = [name for name in members.names if name != victim.name]
    with members.relay.delay(victim.name, others, 0.05, 0.05):
        await trio.sleep(rng.choice((1, 4)))


async def _reset(members: RealMembers, rng: random.Random, victim: Process) -> None:
    for name in members.names:
        if name != victim.name:
            members.relay.reset_connections(victim.name, name)


async def _full_disk(members: RealMembers, rng: random.Random, victim: Process) -> None:
    """It must end and say so, and go on where it was once there's room."""
    victim.fill_disk()
    with trio.move_on_after(5):
        while victim.alive:
            await trio.sleep(0.05)
    victim.empty_disk()
    if not victim.alive:
        victim.start()


FAULTS: dict[str, Fault] = {
    "kill": _kill,
    "restart": _restart,
    "pause": _pause,
    "isolate": _isolate,
    "one way": _one_way,
    "slow links": _slow_links,
    "reset": _reset,
    "full disk": _full_disk,
}
DOWN = ("kill", "restart", "pause", "full disk")
"""Those that take the process away."""


async def inflict(
    members: RealMembers,
    rng: random.Random,
    seconds: float,
    reached: Counter[str],
    note: Callable[[str], None],
) -> None:
    """One fault after the other, sometimes two at once, for so long; then all of them are over."""
    down: set[int] = set()
    most = (len(members.processes) - 1) // 2
    kinds = [kind for kind in FAULTS if kind != "full disk" or members.small_disks]

    async def one() -> None:
        kind, victim = rng.choice(kinds), rng.choice(list(members.processes.values()))
        takes_away = kind in DOWN
        if victim.id in down or (takes_away and len(down) >= most):
            return
        with contextlib.ExitStack() as stack:
            if takes_away:
                down.add(victim.id)
                stack.callback(down.discard, victim.id)
            note(f"{kind} {victim.name}")
            await FAULTS[kind](members, rng, victim)
            reached[kind] += 1

    end = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        while trio.current_time() < end:
            nursery.start_soon(one)
            await trio.sleep(rng.uniform(0.2, 2.0))
