"""The store's history as it must be: the committed log, replayed by the plainest means.

It shares nothing with the machine under test but the shape of commands, and keeps no index, no
sorted keys and no bounds: dictionaries, and a list of all that ever changed. What clients and
watchers were told is judged by it, also where compaction has long removed it from the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Change", "Replayed"]


class Pair(NamedTuple):
    """A live key's value and numbers."""

    value: bytes
    created: int
    modified: int
    version: int
    lease: int


class Change(NamedTuple):
    """One key as one revision left it; value None where it was deleted.

    `created`: its create revision, 0 for a deletion. `previous`: its value before, None where it
    was absent.
    """

    revision: int
    key: bytes
    value: bytes | None
    created: int = 0
    previous: bytes | None = None


class Replayed:
    """Feed it every command of the log in order."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.live: dict[bytes, Pair] = {}
        self.leases: dict[int, None] = {}
        self.changes: list[Change] = []
        self.compactions: dict[int, None] = {}

    def apply(self, command: Sequence[Any]) -> None:
        """One command; one that is refused changes nothing, and is not told apart."""
        kind, *arguments = command
        before = len(self.changes)
        if kind == "txn":
            self._txn(*arguments)
        elif kind == "put" and self._granted(arguments[2]):
            self._put(*arguments[:3])
        elif kind == "delete":
            self._delete(*arguments[:2])
        elif kind == "compact" and self.compacted < arguments[0] <= self.revision:
            self.compacted = arguments[0]
            self.compactions[arguments[0]] = None
        elif kind == "lease_grant":
            self.leases[arguments[0]] = None
        elif kind == "lease_revoke" and arguments[0] in self.leases:
            del self.leases[arguments[0]]
            for key in sorted(k for k, pair in self.live.items() if pair.lease == arguments[0]):
                self._delete(key, None)
        if len(self.changes) > before:
            self.revision += 1

    def _granted(self, lease: int) -> bool:
        return not lease or lease in self.leases

    def _txn(self, compares: Any, success: Any, failure: Any) -> None:
        operations = success if all(self._holds(*compare) for compare in compares) else failure
        for operation in operations:
            if operation[0] == "put" and not self._granted(operation[3]):
                return
            if operation[0] == "range" and not self._readable(operation[4]):
                return
        for operation in operations:
            if operation[0] == "put":
                self._put(*operation[1:4])
            elif operation[0] == "delete":
                self._delete(*operation[1:3])

    def _readable(self, revision: int) -> bool:
        return not revision or self.compacted <= revision <= self.revision

    def _holds(self, key: bytes, end: bytes | None, target: str, operator: str, than: Any) -> bool:
        """Comparisons of single keys, as the clients of our stories make them."""
        assert not end
        pair = self.live.get(key)
        if pair is None and target == "value":
            return False
        field = {"value": 0, "create": 1, "mod": 2, "version": 3, "lease": 4}[target]
        found: Any = 0 if pair is None else pair[field]
        verdict: bool = {
            "=": found == than,
            "!=": found != than,
            "<": found < than,
            ">": found > than,
        }[operator]
        return verdict

    def _put(self, key: bytes, value: bytes, lease: int) -> None:
        at = self.revision + 1
        old = self.live.get(key)
        created, version = (old.created, old.version + 1) if old else (at, 1)
        self.live[key] = Pair(value, created, at, version, lease)
        self.changes.append(Change(at, key, value, created, old.value if old else None))

    def _delete(self, key: bytes, end: bytes | None) -> None:
        at = self.revision + 1
        for each in sorted(self.live):
            if each == key or (end and key <= each and (end == b"\0" or each < end)):
                old = self.live.pop(each)
                self.changes.append(Change(at, each, None, 0, old.value))
