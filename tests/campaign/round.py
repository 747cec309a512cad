"""One round: a cluster of real processes, its clients, the faults, the healing, the verdict."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import trio

from raftkv.client import KvClient, open_client
from raftkv.client.client import UNREACHABLE
from raftkv.errors import Compacted, FutureRevision, NotApplied, UnknownOutcome
from raftkv.host import Address
from raftkv.os_host import OsHost
from tests.campaign.faults import inflict
from tests.campaign.members import RealMembers, open_members
from tests.checkers.history import History, Outcome
from tests.checkers.leases import check_lease
from tests.checkers.linearizable import check_linearizable
from tests.checkers.revisions import Change, check_revisions
from tests.sim.workload import ALL_KEYS, Caller, LeaseHolder, Watcher

__all__ = ["play"]

CALLERS = 4
START_SECONDS = 30.0
LIVENESS_SECONDS = 60.0
LEASE_SLACK_SECONDS = 90.0


@attrs.define
class Here:
    """The real world, as the clients of the simulation see theirs."""

    file: Path

    def time(self) -> float:
        return trio.current_time()

    def note(self, line: str) -> None:
        with self.file.open("a") as log:
            log.write(f"{trio.current_time():.3f} {line}\n")


@attrs.define
class SparingCaller(Caller):
    """Compacts only where the observers may lose their place."""

    compacts: bool = False

    async def _compact(self) -> None:
        if self.compacts:
            await Caller._compact(self)


async def play(seed: int, count: int, seconds: float, directory: Path) -> Counter[str]:
    """What was reached; raises AssertionErrors of the checkers, trio.TooSlowError."""
    rng = random.Random(seed)
    options = ["--tick", rng.choice(("0.02", "0.05", "0.1"))]
    options += ["--snapshot-entries", rng.choice(("30", "300", "10000"))]
    async with open_members(directory, seed, count, options) as members:
        story = Story(members, Here(directory / "story.log"), rng)
        async with AsyncExitStack() as stack:
            await story.open_clients(stack)
            await story.tell(seconds)
        story.check()
        return story.reached


@attrs.define
class Story:
    members: RealMembers
    here: Here
    rng: random.Random
    history: History = attrs.field(factory=History)
    callers: list[Caller] = attrs.field(factory=list)
    watchers: list[Watcher] = attrs.field(factory=list)
    holders: list[LeaseHolder] = attrs.field(factory=list)
    reached: Counter[str] = attrs.field(factory=Counter)
    compacts: bool = False

    async def open_clients(self, stack: AsyncExitStack) -> None:
        self.compacts = compacts = self.rng.random() < 0.3
        for number in range(1, CALLERS + 1):
            kv = await self._client(stack)
            rng = random.Random(self.rng.getrandbits(64))
            caller = SparingCaller(self.here, number, kv, self.history, rng, 0.1, compacts=compacts)
            self.callers.append(caller)
        self.watchers.append(Watcher(await self._client(stack), *ALL_KEYS, prev_kv=True))
        self.watchers.append(Watcher(await self._client(stack), b"k/b", b"k/d", prev_kv=True))
        self.watchers.append(Watcher(await self._client(stack), b"k/a", b"k/c", no_put=True))
        rng = random.Random(self.rng.getrandbits(64))
        self.holders.append(LeaseHolder(self.here, await self._client(stack), self.history, rng))

    async def _client(self, stack: AsyncExitStack) -> KvClient:
        host = OsHost()
        endpoints = self.members.endpoints
        self.rng.shuffle(endpoints)
        return await stack.enter_async_context(open_client(endpoints, host.net, rng=host.rng))

    async def tell(self, seconds: float) -> None:
        with trio.fail_after(START_SECONDS):
            await self._write_once(self.callers[0])
        async with trio.open_nursery() as nursery:
            actors: list[Caller | Watcher | LeaseHolder] = [
                *self.callers,
                *self.watchers,
                *self.holders,
            ]
            for run_actor in [actor.run for actor in actors]:
                nursery.start_soon(run_actor)
            nursery.start_soon(self._guard)
            await inflict(self.members, self.rng, seconds, self.reached, self.here.note)
            self.here.note("everything is healed")
            for caller in self.callers:
                caller.stopped = True
            with trio.fail_after(LIVENESS_SECONDS):
                for caller in self.callers:
                    await self._write_once(caller)
                await self._wait_shown()
                await self._compare_states()
            self._check_leases()
            nursery.cancel_scope.cancel()
        self.members.check()

    async def _guard(self) -> None:
        while True:
            await trio.sleep(0.2)
            self.members.check()

    async def _write_once(self, caller: Caller) -> None:
        while True:
            operation = self.history.begin(self.here.time(), caller.number, "put", b"k/b")
            try:
                await caller.put(operation)
                return
            except NotApplied:
                operation.failed(self.here.time())
            except UnknownOutcome:
                await trio.sleep(0.1)

    async def _wait_shown(self) -> None:
        """Until the watchers have seen all that was acknowledged."""
        newest = max(o.revision or 0 for o in self.history.operations if o.wrote)
        while any(watcher.shown_to < newest for watcher in self.watchers):
            await trio.sleep(0.05)

    async def _compare_states(self) -> None:
        """Every member, also one that was down most of the time, comes to hold the same."""
        kv = self.callers[0].kv
        while True:
            revision = await kv.current_revision()
            found = [
                await self._hash(kv, process.client, revision)
                for process in self.members.processes.values()
            ]
            if None not in found and len({row[1] for row in found if row}) == 1:
                assert len(set(found)) == 1, f"the members differ at revision {revision}: {found}"
                return
            await trio.sleep(0.1)

    @staticmethod
    async def _hash(kv: KvClient, address: Address, revision: int) -> tuple[int, int, int] | None:
        with trio.move_on_after(5):
            try:
                return await kv.hash(address, revision)
            except (*UNREACHABLE, FutureRevision, Compacted):
                return None
        return None

    def _check_leases(self) -> None:
        for holder in self.holders:
            for life in holder.lives:
                check_lease(life, now=self.here.time(), slack=LEASE_SLACK_SECONDS)
                self.reached["leases gone"] += life.gone is not None

    def check(self) -> None:
        """The verdict over the whole history."""
        observer = self.watchers[0]
        changes: list[Change] = [
            change for segment in observer.segments for batch in segment.batches for change in batch
        ]
        if len(observer.segments) == 1:
            check_revisions(self.history, changes, observer.shown_to)
            compactions = range(observer.shown_to + 1) if self.compacts else range(0)
            for watcher in self.watchers:
                watcher.check(changes, compactions)
        check_linearizable(self.history)
        self.reached["answered"] += self.history.count(Outcome.OK)
        self.reached["unknown"] += self.history.count(Outcome.UNKNOWN)
        self.reached["changes"] += len(changes)
        self.reached["small disks"] += self.members.small_disks
