"""One of many: an election by keys under leases, with a token that fences the winner's writes.

Candidates put a key each under a common prefix, bound to their lease; the one with the oldest
creation revision leads. Whoever is next waits for the key before its own to go. As in etcd.

A lock alone is unsafe: its holder may be paused and wake up after its lease is gone. `Leadership`
therefore gives a comparison, `still_leading`, that belongs into every transaction that the leader
makes; the store refuses it as soon as the key is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs

from raftkv.client.client import KvClient
from raftkv.client.lease import KeptLease, open_lease
from raftkv.client.types import KeyValue, compare, get_op, prefix_end, put_op

__all__ = ["Leadership", "current_leader", "open_candidacy"]


@attrs.frozen
class Leadership:
    """`revision` is the fencing token: it is greater than that of every leader before."""

    key: bytes
    revision: int
    lease: KeptLease

    def still_leading(self) -> list[Any]:
        """For the compares of a transaction: the own key is still the one that won."""
        return compare(self.key, "create", "=", self.revision)


@contextlib.asynccontextmanager
async def open_candidacy(
    kv: KvClient, prefix: bytes, value: bytes, *, ttl: int = 10
) -> AsyncIterator[Leadership]:
    """Stand for election; the block begins when it is won, and its end gives the post up.

    `value` tells the others who leads. `Leadership.lease.lost` is set when the post may be gone.
    """
    async with open_lease(kv, ttl) as lease:
        key = prefix + b"/%016x" % lease.id
        exists = compare(key, "create", "!=", 0)
        put = await kv.txn([exists], [get_op(key)], [put_op(key, value, lease.id)])
        revision = put.results[0].kvs[0].create_revision if put.succeeded else put.revision
        await _wait_first(kv, prefix, revision)
        yield Leadership(key, revision, lease)


async def current_leader(kv: KvClient, prefix: bytes) -> KeyValue | None:
    """The key of the leader; None where there's none."""
    start = prefix + b"/"
    candidates = (await kv.range(start, prefix_end(start))).kvs
    return min(candidates, key=lambda kv: kv.create_revision, default=None)


async def _wait_first(kv: KvClient, prefix: bytes, revision: int) -> None:
    """Until no older candidate is left; only the next older one is watched."""
    start = prefix + b"/"
    while True:
        found = await kv.range(start, prefix_end(start))
        older = [pair for pair in found.kvs if pair.create_revision < revision]
        if not older:
            return
        before = max(older, key=lambda pair: pair.create_revision)
        async with kv.watch(before.key, start_revision=found.revision + 1, no_put=True) as watch:
            async for batch in watch:
                if batch.events:
                    break
