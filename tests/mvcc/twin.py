"""A state machine too simple to be wrong: it keeps every version for ever and searches linearly.

Only compaction is looked up in one number; nothing is ever pruned.
"""

from __future__ import annotations

from typing import Any

Pair = tuple[bytes, bytes, int, int, int, int]


def inside(candidate: bytes, key: bytes, end: bytes | None) -> bool:
    if not end:
        return candidate == key
    return key <= candidate and (end == b"\0" or candidate < end)


class Refused(Exception):
    """Carries etcd's name of the error."""


class Twin:
    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.history: list[tuple[str, Pair]] = []
        self.leases: dict[int, int] = {}

    # --- reading

    def state(self, revision: int) -> dict[bytes, Pair]:
        state: dict[bytes, Pair] = {}
        for kind, pair in self.history:
            if pair[3] <= revision:
                if kind == "put":
                    state[pair[0]] = pair
                else:
                    del state[pair[0]]
        return dict(sorted(state.items()))

    def check(self, revision: int) -> None:
        if revision > self.revision:
            raise Refused("FutureRevision")
        if revision and revision < self.compacted:
            raise Refused("Compacted")

    def range(
        self, key: bytes, end: bytes | None, limit: int, revision: int, now: int
    ) -> tuple[list[Pair], int, bool]:
        self.check(revision)
        pairs = [p for k, p in self.state(revision or now).items() if inside(k, key, end)]
        cut = pairs[:limit] if limit else pairs
        return cut, len(pairs), len(cut) < len(pairs)

    def events(self, start: int) -> list[tuple[str, Pair, Pair | None]]:
        """From `start` on, with previous pairs where compaction left them."""
        found: list[tuple[str, Pair, Pair | None]] = []
        for kind, pair in self.history:
            if pair[3] >= start:
                before = self.state(pair[3] - 1).get(pair[0])
                found.append((kind, pair, None if pair[3] <= self.compacted else before))
        return found

    # --- writing, into the revision `at`

    def put(self, at: int, key: bytes, value: bytes, lease: int) -> Pair | None:
        before = self.state(at).get(key)
        created, version = (at, 1) if before is None else (before[2], before[4] + 1)
        self.history.append(("put", (key, value, created, at, version, lease)))
        return before

    def delete(self, at: int, key: bytes, end: bytes | None) -> list[Pair]:
        gone = [p for k, p in self.state(at).items() if inside(k, key, end)]
        for pair in gone:
            self.history.append(("delete", (pair[0], b"", 0, at, 0, 0)))
        return gone

    def apply(self, command: list[Any]) -> list[Any]:
        written = len(self.history)
        at = self.revision + 1
        try:
            result: list[Any] = getattr(self, "do_" + command[0])(at, *command[1:])
        except Refused as error:
            assert len(self.history) == written
            return ["error", error.args[0]]
        if len(self.history) > written:
            self.revision = at
        if result and result[0] is None:
            result[0] = self.revision
        return result

    def do_put(self, at: int, key: bytes, value: bytes, lease: int, want: bool) -> list[Any]:
        if lease and lease not in self.leases:
            raise Refused("LeaseNotFound")
        before = self.put(at, key, value, lease)
        return [None, before if want else None]

    def do_delete(self, at: int, key: bytes, end: bytes | None, want: bool) -> list[Any]:
        gone = self.delete(at, key, end)
        return [None, len(gone), gone if want else []]

    def do_compact(self, at: int, revision: int) -> list[Any]:
        if revision <= self.compacted:
            raise Refused("Compacted")
        if revision > self.revision:
            raise Refused("FutureRevision")
        self.compacted = revision
        return [None]

    def do_lease_grant(self, at: int, lease: int, ttl: int) -> list[Any]:
        if lease in self.leases:
            raise Refused("LeaseExists")
        self.leases[lease] = ttl
        return [None, lease, ttl]

    def do_lease_revoke(self, at: int, lease: int) -> list[Any]:
        if lease not in self.leases:
            raise Refused("LeaseNotFound")
        for pair in self.state(at).values():
            if pair[5] == lease:
                self.delete(at, pair[0], None)
        del self.leases[lease]
        return [None]

    def do_txn(self, at: int, compares: Any, success: Any, failure: Any) -> list[Any]:
        good = all(self.compare(at, *compare) for compare in compares)
        branch = success if good else failure
        for op in branch:
            if op[0] == "put" and op[3] and op[3] not in self.leases:
                raise Refused("LeaseNotFound")
        for op in branch:
            if op[0] == "range":
                self.check(op[4])
        results: list[Any] = []
        for op in branch:
            if op[0] == "put":
                before = self.put(at, op[1], op[2], op[3])
                results.append(before if op[4] else None)
            elif op[0] == "delete":
                gone = self.delete(at, op[1], op[2])
                results.append((len(gone), gone if op[3] else []))
            else:
                results.append(self.range(op[1], op[2], op[3], op[4], at))
        return [None, good, results]

    def compare(
        self, at: int, key: bytes, end: bytes | None, target: str, operator: str, operand: Any
    ) -> bool:
        field = {"value": 1, "create": 2, "mod": 3, "version": 4, "lease": 5}[target]
        pairs = [p for k, p in self.state(at).items() if inside(k, key, end)]
        if not pairs:
            if target == "value":
                return False
            pairs = [(b"", b"", 0, 0, 0, 0)]
        for pair in pairs:
            left: Any = pair[field]
            true = {
                "=": left == operand,
                "!=": left != operand,
                "<": left < operand,
                ">": left > operand,
            }[operator]
            if not true:
                return False
        return True
