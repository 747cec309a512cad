"""One seed's story of a cluster whose members change while it is under faults.

An operator keeps adding members and removing others, one change at a time, as a person would: each
step is repeated until the list of members shows it. Clients write and read meanwhile. In the end
everything heals, and those who are members then must make progress and agree; those who are not
have stopped by themselves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import attrs
import trio

from netsim.link import LinkSettings
from netsim.seeds import stream
from netsim.swarm import Fault, carry_out, draw_plan
from netsim.world import Outcome, World, run
from raftkv.client import KvClient, open_client
from raftkv.errors import (
    InvalidRequest,
    MemberExists,
    MemberNotFound,
    MemberRemoved,
    NotApplied,
    StorageFailed,
    TooManyLearners,
    UnhealthyCluster,
    UnknownOutcome,
)
from raftkv.host import Address
from tests.checkers.agreement import Agreement
from tests.checkers.history import History
from tests.checkers.linearizable import check_linearizable
from tests.checkers.revisions import check_revisions
from tests.sim.members import CLIENT_PORT, PEER_PORT, Members, observed
from tests.sim.workload import ALL_KEYS, Caller, Watcher

__all__ = ["plan_of", "play"]

FAULTS_SECONDS = 20.0
LIVENESS_SECONDS = 90.0
MEMBERS_MIN, MEMBERS_MAX = 2, 5
KINDS = (
    *("power_loss", "kill", "pause", "isolate", "partition", "deaf", "mute", "loss", "delay"),
    *("flapping", "reset", "slow_disk"),
)
AGAIN = (NotApplied, UnknownOutcome, UnhealthyCluster)


def _members_of(seed: int) -> int:
    return stream(seed, "size").choice((1, 3, 3))


def plan_of(seed: int) -> list[Fault]:
    """The faults of a seed, on the members of the beginning and on whoever leads."""
    names = [f"m{number}" for number in range(1, _members_of(seed) + 1)]
    rng = stream(seed, "plan")
    chief = rng.choice((0, 0.3, 0.8))
    return draw_plan(rng, names, ["c1", "c2"], FAULTS_SECONDS, kinds=KINDS, chief=chief)


def play(
    seed: int, *, without: Sequence[int] = (), trace_to: list[str] | None = None
) -> Outcome[Story]:
    """Run the story, leaving out the faults of the given numbers; raises what a checker finds."""
    plan = [fault for number, fault in enumerate(plan_of(seed)) if number not in without]
    story = Story(plan)
    links = LinkSettings(latency=0.002, jitter=0.004)
    with observed(story.agreement, story.reached):
        return run(seed, story.tell, links=links, trace_to=trace_to)


@attrs.define
class Story:
    plan: list[Fault]
    agreement: Agreement = attrs.field(factory=Agreement)
    reached: Counter[str] = attrs.field(factory=Counter)
    history: History = attrs.field(factory=History)

    def summary(self) -> str:
        return str(dict(self.reached))

    async def tell(self, world: World) -> Story:
        rng = world.rng("reshaping")
        members = Members.draw(world, rng, _members_of(world.seed), peers_always=True)
        members.exits = (StorageFailed, MemberRemoved)
        members.start()
        async with AsyncExitStack() as stack:
            callers = [
                Caller(world, n, await self._client(world, members, n, stack), self.history, rng, 1)
                for n in (1, 2)
            ]
            observer = Watcher(await self._client(world, members, 3, stack), *ALL_KEYS)
            operator = Operator(
                world, members, await self._client(world, members, 4, stack), rng, self.reached
            )
            async with trio.open_nursery() as nursery:
                for run_actor in [caller.run for caller in callers]:
                    nursery.start_soon(run_actor)
                nursery.start_soon(observer.run)
                nursery.start_soon(operator.run)
                await carry_out(world, self.plan, members.leader)
                self.reached.update(fault.kind for fault in self.plan)
                with trio.fail_after(LIVENESS_SECONDS):
                    await operator.stop()
                    for caller in callers:
                        caller.stopped = True
                        await self._write(world, caller)
                    await self._converge(world, members, operator)
                    await self._wait_shown(observer)
                nursery.cancel_scope.cancel()
        self._check(observer)
        return self

    async def _client(
        self, world: World, members: Members, number: int, stack: AsyncExitStack
    ) -> KvClient:
        """Clients know of members that may come."""
        host = world.host(f"c{number}")
        endpoints = [Address(f"m{id_}", CLIENT_PORT) for id_ in range(1, 12)]
        return await stack.enter_async_context(open_client(endpoints, host.net, rng=host.rng))

    async def _write(self, world: World, caller: Caller) -> None:
        while True:
            operation = self.history.begin(world.time(), caller.number, "put", b"k/b")
            try:
                await caller.put(operation)
                return
            except NotApplied:
                operation.failed(world.time())
            except UnknownOutcome:
                await trio.sleep(0.1)

    async def _converge(self, world: World, members: Members, operator: Operator) -> None:
        """All members hold the same, and none that was removed leads.

        One that was away when it was removed, and knows only members that were removed too, may
        still wait for them: nobody can tell it.
        """
        while True:
            await trio.sleep(0.2)
            names = [f"m{id_}" for id_ in sorted(await operator.rows())]
            assert members.leader() is None or members.leader() in names
            servers = [members.running[name] for name in names if name in members.running]
            states = {(s.replica.applied, s.replica.machine.hash()) for s in servers}
            if len(servers) == len(names) and len(states) == 1:
                return

    async def _wait_shown(self, observer: Watcher) -> None:
        while any(
            operation.wrote and (operation.revision or 0) > observer.shown_to
            for operation in self.history.operations
        ):
            await trio.sleep(0.05)

    def _check(self, observer: Watcher) -> None:
        if len(observer.segments) == 1:
            changes = [change for batch in observer.segments[0].batches for change in batch]
            check_revisions(self.history, changes, observer.shown_to)
        check_linearizable(self.history)


@attrs.define
class Operator:
    """Changes the membership, as long as it's told to."""

    world: World
    members: Members
    kv: KvClient
    rng: random.Random
    reached: Counter[str]
    next_id: int = 0
    stopping: bool = False
    stopped: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        self.next_id = len(self.members.configs) + 1
        while not self.stopping and self.next_id < 12:
            await trio.sleep(self.rng.random() * 2)
            rows = await self.rows()
            if len(rows) <= MEMBERS_MIN or (len(rows) < MEMBERS_MAX and self.rng.random() < 0.6):
                await self.add(rows)
            else:
                await self.remove(self.rng.choice(sorted(rows)))
        self.stopped.set()

    async def stop(self) -> None:
        self.stopping = True
        await self.stopped.wait()

    async def rows(self) -> dict[int, Address]:
        """The members by id, with their peer addresses."""
        while True:
            with trio.move_on_after(3):
                return {
                    row["id"]: Address(f"m{row['id']}", PEER_PORT)
                    for row in await self.kv.members()
                }
            await trio.sleep(0.2)

    async def add(self, rows: dict[int, Address]) -> None:
        id_, self.next_id = self.next_id, self.next_id + 1
        name, address = f"m{id_}", Address(f"m{id_}", PEER_PORT)
        self.world.note(f"operator adds {name}")
        while not await self._is_member(id_):
            try:
                with trio.move_on_after(3):
                    await self.kv.member_add(id_, name, str(address))
            except MemberExists:
                break
            except (*AGAIN, TooManyLearners):
                await trio.sleep(0.3)
        first = next(iter(self.members.configs.values()))
        config = attrs.evolve(
            first,
            id=id_,
            name=name,
            client_address=Address(name, CLIENT_PORT),
            peer_address=address,
            peers={**rows, id_: address},
            join=True,
            campaign_at_start=False,
        )
        self.members.add(name, config)
        self.reached["members added"] += 1
        with trio.move_on_after(20):
            while id_ not in await self._voters():
                await trio.sleep(0.3)
            self.reached["members promoted"] += 1

    async def remove(self, id_: int) -> None:
        self.world.note(f"operator removes m{id_}")
        while await self._is_member(id_):
            try:
                with trio.move_on_after(3):
                    await self.kv.member_remove(id_)
            except (MemberNotFound, InvalidRequest):
                return
            except AGAIN:
                await trio.sleep(0.3)
                if self.rng.random() < 0.2:
                    return  # it would cost the majority
        self.reached["members removed"] += 1

    async def _is_member(self, id_: int) -> bool:
        return id_ in await self.rows()

    async def _voters(self) -> list[int]:
        with trio.move_on_after(3):
            return [row["id"] for row in await self.kv.members() if not row["learner"]]
        return []
