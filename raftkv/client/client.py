"""`open_client`: the store as seen from outside, whichever member leads.

Owns: at most one connection per member, opened when needed. Requests that need the leader go
where it was last seen; a member that does not lead says who does. Watches and serializable reads
stay with the first member that answers.

What is sent again without asking: reads, and writes that provably were not applied (refused with
a `NotApplied` error, or never sent). A write whose answer was lost raises UnknownOutcome, for it
may have taken place. There are no timeouts: a request waits until a member can answer it; callers
bound it with `trio.fail_after`.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from typing import Any

import trio

from raftkv.client import types
from raftkv.client.connection import Attempt, Connection, ConnectionLost, NotSent
from raftkv.client.types import KeyValue, RangeResult, TxnResult
from raftkv.client.watch import Watch
from raftkv.errors import (
    KvError,
    LeaderChanged,
    NotApplied,
    NotLeader,
    RequestTooLarge,
    Unavailable,
    UnknownOutcome,
    from_wire,
)
from raftkv.host import Address, Net, Tls, parse_address
from raftkv.streams import only_error
from raftkv.wire.protocol import (
    COUNT_ONLY,
    KEYS_ONLY,
    MAX_REQUEST_BYTES,
    NO_DELETE,
    NO_PUT,
    PREV_KV,
    PROGRESS,
    SERIALIZABLE,
    is_error,
)

__all__ = ["KvClient", "open_client"]

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""Between two attempts, on average; drawn anew each time."""
AVOID_SECONDS = 2.0
"""How long a leader that could not be reached is not looked for there, whoever names it."""


class KvClient:
    """Made by `open_client`. Any number of tasks may use it at once."""

    def __init__(
        self,
        endpoints: Sequence[Address],
        net: Net,
        tls: Tls | None,
        rng: random.Random,
        nursery: trio.Nursery,
    ) -> None:
        if not endpoints:
            raise ValueError("a client needs at least one endpoint")
        self.endpoints = tuple(Address(*endpoint) for endpoint in endpoints)
        self._net = net
        self._tls = tls
        self._rng = rng
        self._nursery = nursery
        self._connections: dict[Address, Connection] = {}
        self._attempts: dict[Address, Attempt] = {}
        self._avoided: dict[Address, float] = {}  # since when
        self._unreachable: dict[Address, float] = {}  # when that was found
        self._leader: Address | None = None
        self.last_problem = ""
        """Why the last attempt at anything failed: for messages when a caller gives up."""

    # --- reads ----------------------------------------------------------------------------------

    async def get(
        self, key: bytes, *, revision: int = 0, serializable: bool = False
    ) -> KeyValue | None:
        """The pair at `key`, or None. Raises EmptyKey, Compacted, FutureRevision."""
        found = await self.range(key, revision=revision, serializable=serializable)
        return found.kvs[0] if found.kvs else None

    async def range(
        self,
        key: bytes,
        end: bytes | None = None,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
    ) -> RangeResult:
        """The pairs in [key, end), in order; `end` None: the key alone, `b"\\0"`: to the last.

        `serializable`: from whichever member answers, perhaps an old state. A large range comes in
        several answers, all of one revision, which has to last as long.
        Raises EmptyKey, Compacted, FutureRevision.
        """
        options = (
            (KEYS_ONLY if keys_only else 0)
            | (COUNT_ONLY if count_only else 0)
            | (SERIALIZABLE if serializable else 0)
        )
        request = ("range", key, end, limit, revision, options)
        found = types.range_result(await self.read(request, near=serializable))
        kvs, more = found.kvs, found.more
        while more and not count_only and len(kvs) != limit:
            start, left = kvs[-1].key + b"\0", limit and limit - len(kvs)
            request = ("range", start, end, left, revision or found.revision, options)
            page = types.range_result(await self.read(request, near=serializable))
            kvs += page.kvs
            more = page.more
        return found._replace(more=more)

    async def current_revision(self) -> int:
        """The store's revision now, linearizable: at least that of every finished write."""
        result = await self.read(("revision",))
        revision: int = result[0]
        return revision

    # --- writes ---------------------------------------------------------------------------------

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        """Write; the new revision. Raises EmptyKey, LeaseNotFound, NoSpace, RequestTooLarge,
        UnknownOutcome."""
        _check_size(len(key) + len(value))
        result = await self.write(("put", key, value, lease, False))
        revision: int = result[0]
        return revision

    async def delete(self, key: bytes, end: bytes | None = None) -> int:
        """Delete a key or range; how many pairs that was. Raises EmptyKey, UnknownOutcome."""
        result = await self.write(("delete", key, end, False))
        deleted: int = result[1]
        return deleted

    async def txn(
        self,
        compares: Sequence[Any],
        success: Sequence[Any] = (),
        failure: Sequence[Any] = (),
    ) -> TxnResult:
        """If all `compares` hold do `success`, else `failure`, in one revision, whole or not.

        The parts come from `compare`, `put_op`, `delete_op`, `get_op`. Raises DuplicateKey,
        TooManyOps, LeaseNotFound, NoSpace, RequestTooLarge, UnknownOutcome.
        """
        _check_size(sum(len(op[1]) + len(op[2] or b"") for op in (*success, *failure)))
        result = await self.write(("txn", compares, success, failure))
        revision, succeeded, rows = result
        operations = success if succeeded else failure
        results = [
            types.range_result(row) if op[0] == "range" else row
            for op, row in zip(operations, rows, strict=True)
        ]
        return TxnResult(succeeded, revision, results)

    async def compact(self, revision: int) -> None:
        """Give up what lies before `revision`. Raises Compacted, FutureRevision, UnknownOutcome."""
        await self.write(("compact", revision))

    # --- leases ---------------------------------------------------------------------------------

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> int:
        """A lease of `ttl` seconds; its id (chosen by the server where 0).

        Raises LeaseExists, LeaseTtlTooLarge, UnknownOutcome.
        """
        result = await self.write(("lease_grant", lease_id, ttl))
        granted: int = result[1]
        return granted

    async def lease_revoke(self, lease_id: int) -> None:
        """End a lease with all its keys. Raises LeaseNotFound, UnknownOutcome."""
        await self.write(("lease_revoke", lease_id))

    async def lease_keep_alive(self, lease_id: int) -> int:
        """Begin the lease's time anew; its TTL. Raises LeaseNotFound: it is gone, or going."""
        result = await self.read(("lease_keep_alive", lease_id))
        ttl: int = result[1]
        return ttl

    async def lease_time_to_live(self, lease_id: int) -> tuple[int, int, list[bytes]]:
        """(seconds left or -1 where it does not exist, granted TTL, keys)."""
        result = await self.read(("lease_time_to_live", lease_id, True))
        return result[1], result[2], result[3]

    async def leases(self) -> list[int]:
        result = await self.read(("leases",))
        ids: list[int] = result[1]
        return ids

    # --- watches --------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def watch(
        self,
        key: bytes,
        end: bytes | None = None,
        *,
        start_revision: int = 0,
        prev_kv: bool = False,
        progress: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
    ) -> AsyncIterator[Watch]:
        """Every event of a range from `start_revision` on (0: from now), gapless and in order.

        Entering means that the server has taken it. It survives the loss of members; iterating
        raises Compacted where history is gone. `progress`: batches without events tell, now and
        then, how far the silence reaches; `Watch.request_progress` asks for one.
        """
        options = (
            (PREV_KV if prev_kv else 0)
            | (PROGRESS if progress else 0)
            | (NO_PUT if no_put else 0)
            | (NO_DELETE if no_delete else 0)
        )
        watch = Watch(self, key, end, start_revision, options)
        try:
            await watch.open()
            yield watch
        finally:
            watch.close()

    # --- members --------------------------------------------------------------------------------

    async def status(self, address: Address | None = None) -> dict[str, Any]:
        """What a member tells of itself (the first that answers, where no address is given).

        With an address: raises OSError or ConnectionLost where it can't be reached.
        """
        if address is None:
            result = await self.read(("status",), near=True)
        else:
            connection = await self._connect(Address(*address))
            result = await connection.call("status")
        status: dict[str, Any] = result[0]
        return status

    async def members(self, *, serializable: bool = False) -> list[dict[str, Any]]:
        """id, name, peer_address, client_address, leader, learner of each, in order of id.

        `serializable`: from whichever member answers, perhaps an old list; without a majority
        there is no other.
        """
        rows = await self.read(("members", not serializable), near=serializable)
        names = ("id", "name", "peer_address", "client_address", "leader", "learner")
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def move_leader(self, to: int) -> None:
        """Hand leadership to a member. Raises InvalidRequest."""
        await self.read(("move_leader", to))

    async def member_add(
        self, member: int, name: str, peer_address: str, *, learner: bool = False
    ) -> None:
        """Admit a member. It begins as a learner, and unless `learner` is set it becomes a voter
        by itself once it has caught up.

        Raises MemberExists, TooManyLearners, UnhealthyCluster, InvalidRequest, UnknownOutcome.
        """
        await self.write(("member_add", member, name, peer_address, not learner))

    async def member_remove(self, member: int) -> None:
        """Remove a member for ever. Raises MemberNotFound, UnhealthyCluster, InvalidRequest (the
        last voter), UnknownOutcome."""
        await self.write(("member_remove", member))

    async def member_promote(self, member: int) -> None:
        """Make a learner a voter. Raises MemberNotFound, LearnerNotReady, InvalidRequest,
        UnknownOutcome."""
        await self.write(("member_promote", member))

    async def hash(self, address: Address, revision: int = 0) -> tuple[int, int, int]:
        """(revision, compacted revision, checksum of keys, values and history up to there) of one
        member: sound members agree on the third where the first two are equal.

        Raises Compacted, FutureRevision (the member is behind), OSError, ConnectionLost.
        """
        result = await (await self._connect(Address(*address))).call("hash", revision)
        if is_error(result):
            raise from_wire(*result[1:])
        return result[0], result[1], result[2]

    async def save_snapshot(self, write: Callable[[bytes], object]) -> int:
        """A backup of the whole store as it is now or a little later, piece by piece to `write`;
        its revision. `raftkv.storage.backup` makes a member of it.

        Raises Unavailable where the connection is lost midway: then begin again, from nothing.
        """
        revision = await self.current_revision()
        while True:
            connection = await self.near_connection()
            try:
                result = await connection.call("snapshot_open")
                if not is_error(result) and result[0] >= revision:
                    break
            except ConnectionLost as error:
                self._lost(connection, error)
            self.avoid(connection)  # it lags behind
            await self.pause()
        found: int = result[0]
        try:
            while True:
                piece = await connection.call("snapshot_read")
                if is_error(piece):
                    raise from_wire(*piece[1:])
                if not piece[0]:
                    return found
                write(piece[0])
        except ConnectionLost as error:
            raise Unavailable(f"the backup is incomplete: {error}") from error

    # --- how requests travel --------------------------------------------------------------------

    async def read(self, request: tuple[Any, ...], *, near: bool = False) -> Any:
        """The result of a request that may be repeated at will. Raises KvError."""
        while True:
            connection = await (self.near_connection() if near else self._leader_connection())
            try:
                result = await connection.call(*request)
            except ConnectionLost as error:
                self._lost(connection, error)
                continue
            if not is_error(result):
                return result
            error_found = from_wire(*result[1:])
            if not isinstance(error_found, NotApplied | LeaderChanged):
                raise error_found
            await self._turned_away(connection, error_found, near)

    async def write(self, request: tuple[Any, ...]) -> Any:
        """The same of a request that must not be repeated unless it certainly had no effect."""
        while True:
            connection = await self._leader_connection()
            try:
                result = await connection.call(*request)
            except NotSent:
                continue
            except ConnectionLost as error:
                self._lost(connection, error)
                raise UnknownOutcome(f"{UnknownOutcome.text} ({error})") from error
            if not is_error(result):
                return result
            error_found = from_wire(*result[1:])
            if isinstance(error_found, LeaderChanged):
                raise UnknownOutcome(f"{UnknownOutcome.text} ({error_found})") from error_found
            if not isinstance(error_found, NotApplied):
                raise error_found
            await self._turned_away(connection, error_found, False)

    async def _turned_away(self, connection: Connection, error: KvError, near: bool) -> None:
        """A member could not serve: find out who can, and don't hurry."""
        self.last_problem = f"{connection.address}: {error}"
        if near:
            self.avoid(connection)
            await self.pause()
            return
        hinted = _leader_hint(error)
        if self._leader == connection.address:
            self._leader = None
        recent = trio.current_time() - AVOID_SECONDS
        if (
            hinted is not None
            and hinted != connection.address
            and (self._unreachable.get(hinted, -inf) < recent)
        ):
            self._leader = hinted
            return
        self.avoid(connection)  # it knows no leader, or one that we could not reach just now
        await self.pause()

    async def pause(self) -> None:
        await trio.sleep(PAUSE_SECONDS * self._rng.uniform(0.5, 1.5))

    def avoid(self, connection: Connection) -> None:
        """Ask this member last for a while."""
        self._avoided[connection.address] = trio.current_time()

    def _lost(self, connection: Connection, error: ConnectionLost) -> None:
        """A member went away, or fell silent: a stopped process still accepts connections, so
        whoever comes back to it first would wait again."""
        self.last_problem = str(error)
        self.avoid(connection)
        if self._leader == connection.address:
            self._leader = None

    async def _leader_connection(self) -> Connection:
        """A connection to the leader as far as known, else to whoever answers."""
        while True:
            leader = self._leader
            if leader is None:
                connection = await self.near_connection()
                if self._leader is None:
                    self._leader = connection.address
                return connection
            try:
                return await self._connect(leader)
            except UNREACHABLE as error:
                self._problem(leader, error)
                if self._leader == leader:
                    self._leader = None

    async def near_connection(self) -> Connection:
        """The first endpoint that answers; those that could not serve are asked last, in the
        order in which that was found.

        However long ago it was: a stopped process accepts connections for ever, each costs a while
        to see through, and of two such members the first would be forgiven when the second is left.
        """
        while True:
            avoided = self._avoided
            for address in sorted(self.endpoints, key=lambda at: avoided.get(at, -inf)):
                try:
                    return await self._connect(address)
                except UNREACHABLE as error:
                    self._problem(address, error)
            await self.pause()

    def _problem(self, address: Address, error: BaseException) -> None:
        self.last_problem = f"{address}: {str(error) or type(error).__name__}"
        self._avoided[address] = self._unreachable[address] = trio.current_time()
        log.debug("address=%s unreachable error=%r", address, error)

    async def _connect(self, address: Address) -> Connection:
        """The connection to a member, made where there's none. Raises what UNREACHABLE lists.

        Those who want the same one share an attempt, and its failure.
        """
        while True:
            connection = self._connections.get(address)
            if connection is not None and connection.alive:
                return connection
            attempt = self._attempts.get(address)
            if attempt is None:
                break
            await attempt.over.wait()
            if attempt.error is not None:
                raise OSError(f"{address} can't be reached: {attempt.error}") from attempt.error
        attempt = self._attempts[address] = Attempt()
        try:
            connection = await Connection.connect(self._net, address, self._tls)
        except UNREACHABLE as error:
            attempt.error = error
            raise
        finally:
            del self._attempts[address]
            attempt.over.set()
        self._connections[address] = connection
        self._unreachable.pop(address, None)
        self._nursery.start_soon(connection.run)
        return connection


UNREACHABLE = (OSError, trio.BrokenResourceError, trio.TooSlowError, ConnectionLost)


def _leader_hint(error: KvError) -> Address | None:
    if isinstance(error, NotLeader) and error.address:
        with contextlib.suppress(ValueError):
            return parse_address(error.address)
    return None


def _check_size(size: int) -> None:
    if size > MAX_REQUEST_BYTES:
        raise RequestTooLarge(
            f"{RequestTooLarge.text}: {size} bytes, the limit is {MAX_REQUEST_BYTES}"
        )


@contextlib.asynccontextmanager
async def open_client(
    endpoints: Sequence[Address], net: Net, *, tls: Tls | None = None, rng: random.Random
) -> AsyncIterator[KvClient]:
    """A client of the cluster whose members listen at `endpoints`; one that answers is enough.

    Connects when something is asked, so it can be opened before the cluster runs.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield KvClient(endpoints, net, tls, rng, nursery)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only_error(group) from None
