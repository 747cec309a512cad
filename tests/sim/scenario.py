"""One seed's story: a cluster and its clients under faults, then a healed majority that must work.

`play(seed)` runs it and raises what any checker finds; the same seed gives the same trace hash in
every process. `FAULTS_SECONDS` of safety, then liveness within `LIVENESS_SECONDS` of virtual time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

import attrs
import trio

from netsim.link import LinkSettings
from netsim.seeds import stream
from netsim.swarm import Fault, carry_out, core_only, draw_plan
from netsim.world import Outcome, World, run
from raftkv.client import open_client
from raftkv.client.types import FROM_KEY
from raftkv.errors import NotApplied, UnknownOutcome
from raftkv.raft.messages import Entry
from raftkv.server import Server
from tests.checkers.agreement import Agreement
from tests.checkers.history import History
from tests.checkers.history import Outcome as Told
from tests.checkers.leases import check_lease
from tests.checkers.linearizable import check_linearizable
from tests.checkers.replayed import Pair
from tests.checkers.revisions import check_revisions
from tests.sim.damage import Vandal
from tests.sim.members import Members, observed, replayed
from tests.sim.workload import ALL_KEYS, Caller, LeaseHolder, Watcher

__all__ = ["Report", "plan_of", "play"]

FAULTS_SECONDS = 10.0
LIVENESS_SECONDS = 60.0
CLIENTS = 3


class NoProgress(AssertionError):
    """A healthy majority did not get its work done."""


@attrs.define
class Report:
    """What a run came to, for the campaign's statistics."""

    reached: Counter[str]
    history: History
    virtual_seconds: float

    def summary(self) -> str:
        return str(dict(self.reached))


def _members_of(seed: int) -> int:
    return stream(seed, "size").choice((1, 3, 3, 3, 3, 3, 5, 5, 7))


def plan_of(seed: int) -> list[Fault]:
    """The faults of a seed. Drawn apart from the world, so that leaving one out moves no other."""
    names = [f"m{number}" for number in range(1, _members_of(seed) + 1)]
    clients = [f"c{number}" for number in range(1, CLIENTS + 1)]
    rng = stream(seed, "plan")
    return draw_plan(rng, names, clients, FAULTS_SECONDS, chief=rng.choice((0, 0.3, 0.8)))


def play(
    seed: int, *, without: Sequence[int] = (), trace_to: list[str] | None = None
) -> Outcome[Report]:
    """Run the story of `seed`, leaving out the faults of the given numbers."""
    plan = [fault for number, fault in enumerate(plan_of(seed)) if number not in without]
    rng = stream(seed, "wires")
    links = LinkSettings(latency=rng.uniform(0.0002, 0.02), jitter=rng.uniform(0, 0.02))
    story = _Story(plan)
    with observed(story.agreement, story.reached, story.log):
        return run(seed, story.tell, links=links, trace_to=trace_to)


@attrs.define
class _Story:
    """What happens, who takes part, and what was seen."""

    plan: list[Fault]
    agreement: Agreement = attrs.field(factory=Agreement)
    reached: Counter[str] = attrs.field(factory=Counter)
    log: dict[int, Entry] = attrs.field(factory=dict)
    """Every entry that was committed."""
    history: History = attrs.field(factory=History)
    callers: list[Caller] = attrs.field(factory=list)
    watchers: list[Watcher] = attrs.field(factory=list)
    holders: list[LeaseHolder] = attrs.field(factory=list)
    stage: str = "to write"

    async def tell(self, world: World) -> Report:
        members = Members.draw(world, world.rng("members"), _members_of(world.seed))
        self.reached[f"{len(members.names)} members"] += 1
        members.start()
        await self._open_clients(world, members)
        async with trio.open_nursery() as nursery:
            actors: list[Caller | Watcher | LeaseHolder] = [
                *self.callers,
                *self.watchers,
                *self.holders,
            ]
            for run_actor in [actor.run for actor in actors]:
                nursery.start_soon(run_actor)
            rng = world.rng("vandal")
            vandal = Vandal(world, members, self.agreement, rng, self.reached)
            async with trio.open_nursery() as faults:
                faults.start_soon(vandal.run, FAULTS_SECONDS / 4)
                faults.start_soon(carry_out, world, self.plan, members.leader)
                faults.start_soon(self._pause_clients, world)
            self.reached.update(fault.kind for fault in self.plan)
            lost = vandal.struck
            async with core_only(world, world.rng("core"), members.names, lost) as core:
                with trio.move_on_after(LIVENESS_SECONDS) as scope:
                    await self._progress(world)
                    await self._converge(members, core)
                    await self._wait_shown()
                if scope.cancelled_caught:
                    raise NoProgress(
                        f"the core {core} had no time {self.stage}: {self._state(members)}"
                    )
                self._check_leases(world)
                self._check_members(members, core)
                if world.rng("blackout").random() < 0.3:
                    await self._blackout(world, members, core)
            nursery.cancel_scope.cancel()
        self._check_history()
        return Report(self.reached, self.history, world.time())

    async def _open_clients(self, world: World, members: Members) -> None:
        rng = world.rng("clients")
        for number in range(1, CLIENTS + 1):
            host = world.host(f"c{number}")
            kv = await host.enter(partial(open_client, members.endpoints, host.net, rng=host.rng))
            pause = rng.choice((0.2, 0.5, 2.0))
            self.callers.append(Caller(world, number, kv, self.history, host.rng, pause))
            if number == 1:
                self.watchers.append(Watcher(kv, *ALL_KEYS))
            elif number == 2:
                self.watchers.append(Watcher(kv, b"k/b", b"k/d", prev_kv=True))
            else:
                self.watchers.append(Watcher(kv, b"k/a", b"k/c", no_put=True))
                self.holders.append(LeaseHolder(world, kv, self.history, host.rng))

    async def _pause_clients(self, world: World) -> None:
        """Some are stopped for a while, and are slow readers then."""
        rng = world.rng("pauses")
        if rng.random() < 0.3:
            await trio.sleep(rng.random() * FAULTS_SECONDS / 2)
            client = world.hosts[f"c{rng.randrange(1, CLIENTS + 1)}"]
            world.pause(client)
            await trio.sleep(rng.random() * FAULTS_SECONDS)
            world.resume(client)
            self.reached["a client stopped"] += 1

    async def _blackout(self, world: World, members: Members, core: list[str]) -> None:
        """All lose power at once: what was acknowledged is on the disks of the core."""
        with trio.fail_after(LIVENESS_SECONDS):
            for name in core:
                world.crash(name)
            for name in core:
                await world.restart(name)
            await self._converge(members, core)
        self._check_members(members, core)
        self.reached["a blackout"] += 1

    async def _progress(self, world: World) -> None:
        """Every client gets a write done and reads it, and every watcher sees it."""
        revision = 0
        for caller in self.callers:
            done = False
            while not done:
                operation = self.history.begin(world.time(), caller.number, "put", b"k/b")
                try:
                    await caller.put(operation)
                    done = True
                except NotApplied:
                    operation.failed(world.time())
                except UnknownOutcome:
                    await trio.sleep(0.1)
                world.note(str(operation))
            revision = max(revision, operation.revision or 0)
        self.stage = "to show it to the watchers"
        while any(watcher.shown_to < revision for watcher in self.watchers):
            await trio.sleep(0.1)

    async def _converge(self, members: Members, core: list[str]) -> None:
        """All members of the core come to hold the same state."""
        self.stage = "to agree"
        for caller in self.callers:
            caller.stopped = True
        while True:
            await trio.sleep(0.2)
            servers = [members.running[name] for name in core if name in members.running]
            machines = [server.replica.machine for server in servers]
            for server, machine in zip(servers, machines, strict=True):
                self.agreement.saw_state(server.id, server.replica.applied, machine.hash())
            if (
                len(servers) == len(core)
                and len({server.replica.applied for server in servers}) == 1
                and not any(_owes(server) for server in servers)
                and max(self.log) == servers[0].replica.applied
            ):
                return

    async def _wait_shown(self) -> None:
        """Until the observer has seen all that was acknowledged: leases are used to the end."""
        self.stage = "to show the rest"
        while any(
            operation.wrote and (operation.revision or 0) > self.watchers[0].shown_to
            for operation in self.history.operations
        ):
            await trio.sleep(0.05)

    def _check_leases(self, world: World) -> None:
        for holder in self.holders:
            for life in holder.lives:
                check_lease(life, now=world.time(), slack=LIVENESS_SECONDS)
                self.reached["leases gone"] += life.gone is not None

    def _check_members(self, members: Members, core: list[str]) -> None:
        """They hold what the log makes of them, and owe nobody an answer."""
        wanted = replayed(self.log)
        for name in core:
            machine = members.running[name].replica.machine
            held = {key: Pair(*row) for key, *row in machine.range(b"\0", FROM_KEY).kvs}
            assert (machine.revision, held) == (wanted.revision, wanted.live), name
            assert machine.compact_revision == wanted.compacted, name

    def _check_history(self) -> None:
        wanted = replayed(self.log)
        check_revisions(self.history, wanted.changes)
        for watcher in self.watchers:
            watcher.check(wanted.changes, wanted.compactions)
            self.reached["a watcher compacted"] += len(watcher.segments) > 1
        check_linearizable(self.history)
        self.reached["operations answered"] += self.history.count(Told.OK)
        self.reached["operations unknown"] += self.history.count(Told.UNKNOWN)

    @staticmethod
    def _state(members: Members) -> str:
        return "; ".join(
            f"{name} {server.replica.node.status()}" for name, server in members.running.items()
        )


def _owes(server: Server) -> bool:
    """Whether somebody waits for its answer."""
    pending = server.replica.pending
    return bool(pending._batches or pending._reads or pending._reads_waiting)
