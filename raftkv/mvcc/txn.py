"""Transactions: the comparisons, and the refusals that depend on state.

Comparisons are made on the state before the transaction, those of transactions in it too; its
operations then run in order and see one another's writes. Everything that can be refused is refused
by `check_operations` before the first write, so a transaction has no effect at all or its whole
effect, in one revision.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from raftkv.errors import KeyNotFound
from raftkv.mvcc.commands import Command, Kv
from raftkv.mvcc.leases import LeaseTable
from raftkv.mvcc.sizes import check_answer
from raftkv.mvcc.store import Store

__all__ = ["Plan", "check_kept", "check_operations", "flattened", "holds", "planned"]

FIELDS: Final = {"value": 1, "create": 2, "mod": 3, "version": 4, "lease": 5}
OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
ABSENT: Final[Kv] = (b"", b"", 0, 0, 0, 0)


@attrs.frozen(slots=True)
class Plan:
    """What a txn will do: its operations in order, a txn among them as its own plan."""

    succeeded: bool
    operations: list[Command | Plan]


def planned(store: Store, txn: Command) -> Plan:
    """The branches that a txn takes, and those in them, by the state as it is."""
    _, compares, success, failure = txn
    succeeded = all(holds(store, compare) for compare in compares)
    operations = success if succeeded else failure
    return Plan(succeeded, [planned(store, op) if op[0] == "txn" else op for op in operations])


def flattened(plan: Plan) -> Iterator[Command]:
    """The operations of a plan, in the order in which they will run."""
    for operation in plan.operations:
        if isinstance(operation, Plan):
            yield from flattened(operation)
        else:
            yield operation


def holds(store: Store, compare: Command) -> bool:
    """Whether a comparison is true of the key, or of every key of the range.

    A key that does not exist compares as zeros, and by value never: there is no value that would
    stand for a missing one.
    """
    key, end, target, relation, operand = compare
    field = FIELDS[target]
    test = OPERATORS[relation]
    if not end:
        pair = store.index.live.get(key)
        pairs = [] if pair is None else [pair]
    else:
        pairs = store.range(key, end).kvs
    if not pairs:
        return target != "value" and test(ABSENT[field], operand)
    return all(test(pair[field], operand) for pair in pairs)


def check_kept(store: Store, put: Command) -> None:
    """Raise KeyNotFound where a put is to keep something of a key that doesn't exist."""
    _, key, value, lease, _ = put
    if (value is None or lease is None) and key not in store.index.live:
        raise KeyNotFound


def check_operations(store: Store, leases: LeaseTable, operations: Sequence[Command]) -> None:
    """Raise KeyNotFound, LeaseNotFound, Compacted, FutureRevision or RequestTooLarge, before
    anything was written.

    The compacted revision asked here moves by log entries alone, hence every replica refuses
    alike, whatever it has swept.
    """
    for operation in operations:
        if operation[0] == "put":
            check_kept(store, operation)
            if operation[3]:
                leases.get(operation[3])
    for operation in operations:
        if operation[0] == "range":
            store.check_revision(operation[4])
    check_answer(store, operations)
