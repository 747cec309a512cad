"""Bugs that other clients had, each under the name of its test.

Jepsen's report on jetcd (2024-08-08) and etcd#14890: a client that repeated transactions of unknown
outcome lost updates and let information flow in circles.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from netsim.world import World, run
from raftkv import errors
from raftkv.client import KvClient, compare, open_client, put_op
from raftkv.client.election import open_candidacy
from raftkv.errors import (
    Compacted,
    KvError,
    LeaderChanged,
    NotApplied,
    UnknownOutcome,
    WalDamaged,
)
from tests.raftkv_client.test_outcomes import Answer, FakeNet, error, hang_up, ok
from tests.sim.members import cluster as simulated_cluster

WRITES: dict[str, Callable[[KvClient], Awaitable[Any]]] = {
    "put": lambda kv: kv.put(b"k", b"v"),
    "delete": lambda kv: kv.delete(b"k"),
    "txn": lambda kv: kv.txn([compare(b"k", "mod", "=", 0)], [put_op(b"k", b"v")]),
    "compact": lambda kv: kv.compact(5),
    "lease_grant": lambda kv: kv.lease_grant(10),
    "lease_revoke": lambda kv: kv.lease_revoke(1),
    "member_remove": lambda kv: kv.member_remove(2),
}


async def asked_for(
    write: Callable[[KvClient], Awaitable[Any]], answer: Answer
) -> tuple[BaseException | None, int]:
    """What a write raises where the first member answers so, and how often it was sent; all that
    comes later is answered well."""
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery)
        well = [ok([7, None])] * 5
        members = [net.member(1, answer, *well), net.member(2, *well)]
        raised: BaseException | None = None
        async with open_client(members, net, rng=random.Random(1)) as kv:
            try:
                with trio.fail_after(60):
                    await write(kv)
            except (KvError, trio.TooSlowError) as found:
                raised = found
        nursery.cancel_scope.cancel()
    return raised, len(net.asked)


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("answer", [hang_up, error(LeaderChanged())])
async def test_no_auto_retry_of_txn(
    autojump_clock: trio.testing.MockClock, name: str, answer: Answer
) -> None:
    raised, times = await asked_for(WRITES[name], answer)
    assert isinstance(raised, UnknownOutcome)
    assert times == 1


def test_unknown_outcome_is_distinct_error() -> None:
    """It is none of those that say "not applied", and has a code of its own on the wire."""
    assert not issubclass(UnknownOutcome, NotApplied)
    assert not issubclass(LeaderChanged, NotApplied)
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = [kind.code for kind in kinds if issubclass(kind, KvError) and kind is not KvError]
    assert codes.count(UnknownOutcome.code) == 1


REFUSALS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, KvError)
    and kind not in (KvError, NotApplied, WalDamaged)
]
"""WalDamaged is about this member's disk and never told to a client."""


@pytest.mark.parametrize("kind", REFUSALS, ids=lambda kind: kind.__name__)
async def test_retry_only_when_provably_not_applied(
    autojump_clock: trio.testing.MockClock, kind: type[KvError]
) -> None:
    """Whatever error a member tells: sent again where it says that nothing was applied, and
    nowhere else."""
    told = Compacted(compact_revision=3) if kind is Compacted else kind()
    raised, times = await asked_for(WRITES["put"], error(told))
    if issubclass(kind, NotApplied):
        assert (raised, times) == (None, 2)
    else:
        assert raised is not None
        assert times == 1


def test_lock_needs_fencing() -> None:
    """Jepsen on etcd 3.4.3: a lock alone is unsafe. Its holder sleeps, another one gets the lock,
    the first wakes up and writes; the comparison that the lock gives out keeps it from that."""

    async def scenario(world: World) -> None:
        async with simulated_cluster(world) as (members, kv):
            host = world.host("sleeper")
            told: list[bool] = []

            async def sleeper() -> None:
                async with open_client(members.endpoints, host.net, rng=host.rng) as own:
                    async with open_candidacy(own, b"lock", b"sleeper", ttl=3) as lock:
                        await own.put(b"work", b"sleeper")
                        await trio.sleep(1)  # it is stopped here
                        fenced = await own.txn([lock.still_leading()], [put_op(b"work", b"late")])
                        told.append(fenced.succeeded)
                        await own.put(b"unfenced", b"late")
                        await trio.sleep_forever()

            host.start(sleeper)
            while await kv.get(b"work") is None:
                await trio.sleep(0.01)
            world.pause(host)
            async with open_candidacy(kv, b"lock", b"next") as lock:
                done = await kv.txn([lock.still_leading()], [put_op(b"work", b"next")])
                assert done.succeeded
                world.resume(host)
                while not told:
                    await trio.sleep(0.1)
                await trio.sleep(1)
                assert told == [False]
                work = await kv.get(b"work")
                assert work is not None
                assert work.value == b"next"
                assert await kv.get(b"unfenced") is not None, "what a lock alone lets through"

    run(1, scenario)
