"""Do the answers fit the store's own history, revision by revision?

Cheaper and sharper than a search, where revisions are told: the log of all events (from a watch
that missed nothing) is the one history, and every answer must be a statement about it.
"""

from __future__ import annotations

import bisect

from tests.checkers.history import History, Operation, Outcome
from tests.checkers.replayed import Change

__all__ = ["Change", "RevisionViolation", "check_revisions"]


class RevisionViolation(AssertionError):
    """An answer contradicts the store's history."""


def check_revisions(
    history: History, changes: list[Change], complete_to: int | None = None
) -> None:
    """Raise RevisionViolation at the first answer that does not fit the changes, oldest first.

    `complete_to`: the revision up to which all changes are known; None: of all answers.
    """
    told = [
        operation
        for operation in history.operations
        if complete_to is None or (operation.revision or 0) <= complete_to
    ]
    _check_writes(history.operations, told, changes)
    _check_reads(told, changes)
    _check_lists(told, changes)
    _check_real_time(history)


def _check_writes(
    operations: list[Operation], told: list[Operation], changes: list[Change]
) -> None:
    """Acknowledged writes are there, once; refused ones are not; nothing else is."""
    at_revision = {(change.revision, change.key): change for change in changes}
    writers: dict[bytes, Operation] = {}
    for operation in operations:
        if operation.value is not None:
            writers[operation.value] = operation
    for operation in told:
        if operation.wrote and operation.revision is not None:
            change = at_revision.get((operation.revision, operation.key))
            if change is None or change.value != operation.value:
                raise RevisionViolation(f"acknowledged and lost: {operation}; there is {change}")
    seen: dict[bytes, int] = {}
    for change in changes:
        if change.value is None:
            continue
        writer = writers.get(change.value)
        if writer is None or writer.key != change.key:
            raise RevisionViolation(f"nobody wrote {change}")
        if change.value in seen:
            raise RevisionViolation(f"written twice, also at {seen[change.value]}: {writer}")
        seen[change.value] = change.revision
        refused = writer.outcome is Outcome.FAILED
        if refused or (writer.outcome is Outcome.OK and not writer.wrote):
            raise RevisionViolation(f"refused, and there at {change.revision}: {writer}")


def _check_reads(operations: list[Operation], changes: list[Change]) -> None:
    """A read at a revision tells the newest change up to it."""
    by_key: dict[bytes, list[Change]] = {}
    for change in changes:
        by_key.setdefault(change.key, []).append(change)
    for operation in operations:
        told = operation.outcome is Outcome.OK and operation.revision is not None
        if operation.kind not in ("get", "peek") or not told:
            continue
        line = by_key.get(operation.key, [])
        position = bisect.bisect_right(line, operation.revision, key=lambda c: c.revision)
        newest = line[position - 1] if position else None
        expected = None
        if newest is not None and newest.value is not None:
            expected = (newest.value, newest.revision)
        if operation.result != expected:
            raise RevisionViolation(f"read {operation}; at that revision there was {expected}")


def _check_lists(operations: list[Operation], changes: list[Change]) -> None:
    """A list at a revision tells every key that existed then, in order, and counts them all.

    Its argument is (end, limit, revision or 0), its result (pairs, count, more).
    """
    lists = [o for o in operations if o.kind == "list" and o.outcome is Outcome.OK]
    state: dict[bytes, tuple[bytes, int]] = {}
    position = 0
    for operation in sorted(lists, key=lambda o: o.argument[2] or o.revision):
        end, limit, pinned = operation.argument
        at = pinned or operation.revision
        while position < len(changes) and changes[position].revision <= at:
            revision, key, value = changes[position][:3]
            if value is None:
                state.pop(key, None)
            else:
                state[key] = (value, revision)
            position += 1
        there = sorted((k, *row) for k, row in state.items() if operation.key <= k < end)
        cut = there[:limit] if limit else there
        expected = (cut, len(there), len(cut) < len(there))
        if operation.result != expected:
            raise RevisionViolation(f"listed {operation}; at {at} there was {expected}")


def _check_real_time(history: History) -> None:
    """An answer is never older than one that was there before the question was asked."""
    answered = [o for o in history.operations if o.revision is not None and o.kind != "peek"]
    answered.sort(key=lambda o: o.called)
    by_return = sorted(answered, key=lambda o: o.returned)
    newest: Operation | None = None
    position = 0
    for operation in answered:
        while position < len(by_return) and by_return[position].returned < operation.called:
            candidate = by_return[position]
            if newest is None or (candidate.revision or 0) > (newest.revision or 0):
                newest = candidate
            position += 1
        if newest is None:
            continue
        revision, floor = operation.revision or 0, newest.revision or 0
        if revision < floor or (operation.wrote and revision == floor):
            raise RevisionViolation(f"went back in time: {operation} after {newest}")
