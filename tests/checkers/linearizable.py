"""Is there one order of all operations that explains every answer, and respects real time?

The search of Wing and Gong with the memory of Lowe, as in porcupine: walk over calls and returns,
take an operation whose call has come and whose turn it can be, go back when stuck, and never visit
the same (operations done, state) twice. Keys are independent registers, each searched for itself.
An operation without an answer may come last, which is as good as never.
"""

from __future__ import annotations

import math

from tests.checkers.history import History, Operation, Outcome

__all__ = ["NotLinearizable", "check_linearizable"]

Register = tuple[bytes | None, int | None]
"""(value or None for absent, mod revision or None where nobody saw it)."""
ABSENT: Register = (None, 0)


class NotLinearizable(AssertionError):
    """No order explains the answers for a key; the message lists the operations."""


def check_linearizable(history: History, start: dict[bytes, Register] | None = None) -> int:
    """Raise NotLinearizable, or return how many operations were ordered.

    `start` gives the keys that existed before the history began.
    """
    by_key: dict[bytes, list[Operation]] = {}
    for operation in history.operations:
        if operation.outcome is Outcome.FAILED or operation.kind in ("peek", "list"):
            continue  # an old state, or one of many keys: check_revisions judges them
        if operation.outcome is Outcome.UNKNOWN and operation.kind == "get":
            continue
        by_key.setdefault(operation.key, []).append(operation)
    for key, operations in by_key.items():
        first = ABSENT if start is None else start.get(key, ABSENT)
        if not _explainable(operations, first):
            lines = "\n  ".join(str(operation) for operation in operations)
            raise NotLinearizable(f"no order explains the answers for {key!r}:\n  {lines}")
    return sum(map(len, by_key.values()))


def step(state: Register, operation: Operation) -> list[Register]:
    """The states in which the operation, taking effect in `state`, can leave the key.

    Empty where its answer contradicts `state`.
    """
    value, revision = state
    known = operation.outcome is Outcome.OK
    if operation.kind == "put":
        return [(operation.argument, operation.revision)]
    if operation.kind == "get":
        found, at = operation.result if operation.result is not None else (None, 0)
        agrees = found == value and (revision is None or at == revision)
        return [(value, at)] if agrees else []
    if operation.kind == "delete":
        if not known:
            return [ABSENT]
        return [ABSENT] if operation.result == (value is not None) else []
    expected, written = operation.argument
    matches = revision is None or revision == expected
    if revision is None and (expected == 0) != (value is None):
        matches = False
    if not known:
        return [(written, None)] if matches else [state]
    if operation.result:
        return [(written, operation.revision)] if matches else []
    return [state] if revision is None or not matches else []


def _explainable(operations: list[Operation], start: Register) -> bool:
    """Depth-first over the operations that may come next, remembering what was visited."""
    ordered = sorted(operations, key=lambda operation: (operation.called, operation.returned))
    must = sum(1 << number for number, o in enumerate(ordered) if o.outcome is Outcome.OK)
    visited: set[tuple[int, Register]] = set()
    stack: list[tuple[int, Register]] = [(0, start)]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        if (done, state) in visited:
            continue
        visited.add((done, state))
        stack.extend(reversed(_next(ordered, done, state)))
    return False


def _next(ordered: list[Operation], done: int, state: Register) -> list[tuple[int, Register]]:
    """Every operation that no other undone one precedes in real time, and that fits the state."""
    found: list[tuple[int, Register]] = []
    earliest_return = math.inf
    for number, operation in enumerate(ordered):
        if done >> number & 1:
            continue
        if operation.called > earliest_return:
            break
        earliest_return = min(earliest_return, operation.returned)
        for after in step(state, operation):
            found.append((done | 1 << number, after))
    return [
        (after_done, after)
        for after_done, after in found
        if _called(ordered, done, after_done) <= earliest_return
    ]


def _called(ordered: list[Operation], done: int, after_done: int) -> float:
    return ordered[(done ^ after_done).bit_length() - 1].called
