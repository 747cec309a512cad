"""The state machine that is replicated: `apply(command)` and reads.

Owns a `Store`, a `LeaseTable` and a `MemberTable`. `apply` is a function of state and command and
nothing else, so that replicas which applied the same commands are equal: no clock, no randomness,
no order of sets. It never raises for what a user did wrong: a refusal is a result, and the same
one everywhere. What it raises is a broken invariant.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from raftkv.errors import EmptyKey, KvError, LeaseExists
from raftkv.mvcc import snapshot
from raftkv.mvcc.commands import Command, Event, Kv, RangeResult, validate
from raftkv.mvcc.leases import Lease, LeaseTable
from raftkv.mvcc.members import MemberInfo, MemberTable
from raftkv.mvcc.sizes import check_answer
from raftkv.mvcc.store import Store
from raftkv.mvcc.txn import Plan, check_kept, check_operations, flattened, planned

__all__ = ["Machine"]


class Machine:
    """All replicated state. One task mutates it."""

    __slots__ = ("leases", "mark", "members", "store")

    def __init__(self) -> None:
        self.mark = (0, 0)
        """Revision and digest at the last `check`; (0, 0) before the first, and after a restore."""
        self.store = Store()
        self.leases = LeaseTable()
        self.members = MemberTable()

    @property
    def revision(self) -> int:
        return self.store.revision

    @property
    def compact_revision(self) -> int:
        """The oldest revision that can be read; 0 before the first compaction."""
        return self.store.compact_revision

    @property
    def size(self) -> int:
        """Bytes of keys and values over all revisions kept."""
        return self.store.index.size

    @property
    def digest(self) -> int:
        """Running checksum of all events: what replicas compare cheaply at equal revisions."""
        return self.store.digest

    # --- reads ----------------------------------------------------------------------------------

    def range(
        self,
        key: bytes,
        end: bytes | None = None,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResult:
        """The pairs of a key or range at a revision (0: now), in order of key.

        Raises EmptyKey, Compacted, FutureRevision.
        """
        if not key:
            raise EmptyKey
        return self.store.range(
            key,
            end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
        )

    # --- writes ---------------------------------------------------------------------------------

    def apply(self, command: Command) -> tuple[list[Any], list[Event]]:
        """Carry out one command of the log: its result, and its events, all of one revision."""
        store = self.store
        try:
            validate(command)
            result = HANDLERS[command[0]](self, command)
        except KvError as error:
            return ["error", error.code, str(error)], []
        events = store.commit()
        if not store.swept:
            store.sweep()
        return result, events

    def _write(self, key: bytes, value: bytes | None, lease: int | None) -> Kv | None:
        if value is None or lease is None:
            _, kept_value, _, _, _, kept_lease = self.store.index.live[key]
            value = kept_value if value is None else value
            lease = kept_lease if lease is None else lease
        before = self.store.put(key, value, lease)
        held = 0 if before is None else before[5]
        if held != lease:
            if held:
                self.leases.detach(key, held)
            if lease:
                self.leases.attach(key, lease)
        return before

    def _remove(self, key: bytes, end: bytes | None) -> list[Kv]:
        deleted = self.store.delete(key, end)
        for pair in deleted:
            if pair[5]:
                self.leases.detach(pair[0], pair[5])
        return deleted

    def _put(self, command: Command) -> list[Any]:
        _, key, value, lease, want_previous = command
        if lease:
            self.leases.get(lease)
        check_kept(self.store, command)
        before = self._write(key, value, lease)
        return [self.store.revision + 1, before if want_previous else None]

    def _delete(self, command: Command) -> list[Any]:
        _, key, end, want_previous = command
        check_answer(self.store, [command])
        deleted = self._remove(key, end)
        revision = self.store.revision + bool(deleted)
        return [revision, len(deleted), deleted if want_previous else []]

    def _txn(self, command: Command) -> list[Any]:
        plan = planned(self.store, command)
        check_operations(self.store, self.leases, list(flattened(plan)))
        return self._carry_out(plan, self.store.revision)

    def _carry_out(self, plan: Plan, revision: int) -> list[Any]:
        store = self.store
        results: list[Any] = []
        for operation in plan.operations:
            if isinstance(operation, Plan):
                result = self._carry_out(operation, revision)
                revision = result[0]
                results.append(result)
            elif operation[0] == "put":
                _, key, value, lease, want_previous = operation
                before = self._write(key, value, lease)
                revision = store.revision + 1
                results.append([revision, before if want_previous else None])
            elif operation[0] == "delete":
                _, key, end, want_previous = operation
                deleted = self._remove(key, end)
                if deleted:
                    revision = store.revision + 1
                results.append([revision, len(deleted), deleted if want_previous else []])
            else:
                _, key, end, limit, at, keys_only, count_only = operation
                results.append(
                    store.range(
                        key,
                        end,
                        limit=limit,
                        revision=at,
                        keys_only=keys_only,
                        count_only=count_only,
                    )
                )
        return [revision, plan.succeeded, results]

    def _compact(self, command: Command) -> list[Any]:
        self.store.compact(command[1])
        return [self.store.revision]

    def _lease_grant(self, command: Command) -> list[Any]:
        _, lease_id, ttl = command
        if lease_id in self.leases:
            raise LeaseExists
        self.leases.add(Lease(lease_id, ttl))
        return [self.store.revision, lease_id, ttl]

    def _lease_revoke(self, command: Command) -> list[Any]:
        """End a lease with all its keys: sorted, in one revision, none where it has no keys."""
        lease = self.leases.get(command[1])
        keys = sorted(lease.keys)
        for key in keys:
            self._remove(key, None)
        self.leases.remove(lease.id)
        return [self.store.revision + bool(keys)]

    def _lease_checkpoint(self, command: Command) -> list[Any]:
        _, lease_id, remaining = command
        lease = self.leases.get(lease_id)
        lease.remaining = min(remaining, lease.ttl)
        return [self.store.revision]

    def _member_add(self, command: Command) -> list[Any]:
        _, member, name, peer_address, promote = command
        self.members.add(member, name, peer_address, bool(promote))
        return [self.store.revision]

    def _member_info(self, command: Command) -> list[Any]:
        _, member, name, peer_address, client_address, incarnation = command
        told = MemberInfo(member, name, peer_address, client_address, incarnation)
        self.members.update(told)
        return [self.store.revision]

    def _member_remove(self, command: Command) -> list[Any]:
        self.members.remove(command[1])
        return [self.store.revision]

    def _check(self, command: Command) -> list[Any]:
        """Whether the state at the last check was what the leader's was; and the next mark.

        The mark is no part of the state: a member that has just restored a snapshot has none, and
        has nothing to compare until the next check.
        """
        _, revision, digest = command
        equal = self.mark[0] != revision or self.mark[1] == digest
        self.mark = (self.store.revision, self.store.digest)
        return [self.store.revision, equal]

    # --- as a whole -----------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state, with a checksum, as `restore` wants it."""
        return b"".join(self.snapshot_parts())

    def snapshot_parts(self) -> Generator[bytes, None, None]:
        """The snapshot in pieces, a millisecond each: the state when the first one is taken.

        Commands may be applied between two pieces and don't show. Memory that compaction gives up
        is freed only when the iterator is exhausted or closed.
        """
        return snapshot.parts(self.store, self.leases, self.members)

    @classmethod
    def restore(cls, data: bytes) -> Machine:
        """The machine that made the snapshot. Raises SnapshotDamaged."""
        machine = cls()
        machine.store, machine.leases, machine.members = snapshot.unpack(data)
        return machine

    def bump_revision(self, amount: int) -> None:
        """Jump ahead, forget history: for a backup restored over a future that clients saw.

        Watchers from before the backup are then told Compacted and list again, instead of waiting
        in silence for revisions that will come a second time with other contents.
        """
        assert amount > 0
        self.store.bump(amount)

    def hash(self) -> int:
        """Checksum over everything readable, 32 bits: O(n), for checks and tests."""
        return snapshot.checksum(self.store, self.leases, self.members)

    def hash_kv(self, revision: int = 0) -> Generator[None, None, tuple[int, int, int]]:
        """(revision, compacted revision, checksum of keys, values and history up to it), step by
        step; see `snapshot.hash_kv`. Raises Compacted, FutureRevision."""
        return snapshot.hash_kv(self.store, revision)


HANDLERS: Final[dict[str, Callable[[Machine, Command], list[Any]]]] = {
    "put": Machine._put,
    "delete": Machine._delete,
    "txn": Machine._txn,
    "compact": Machine._compact,
    "lease_grant": Machine._lease_grant,
    "lease_revoke": Machine._lease_revoke,
    "lease_checkpoint": Machine._lease_checkpoint,
    "member_add": Machine._member_add,
    "member_info": Machine._member_info,
    "member_remove": Machine._member_remove,
    "check": Machine._check,
}
