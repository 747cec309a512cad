"""How large an answer may become, in the bytes of the pairs in it. Pure.

A range that is read is cut at the bound, and the client asks for the rest; what a command of the
log would answer can't be cut, so such a command is refused before it has done anything. Single
keys are not counted: a request can't name many, and a value is no larger than a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from raftkv.errors import RequestTooLarge
from raftkv.mvcc.commands import Command, Kv
from raftkv.mvcc.store import Store

__all__ = ["check_answer", "fitting", "has_pairs"]

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
PAIR_BYTES: Final = 64
"""What a pair takes besides its key and value, rounded up."""


def fitting(pairs: Sequence[Kv]) -> int:
    """How many of these fit into one answer; at least one, if there is one."""
    left = ANSWER_BYTES_MAX
    for number, pair in enumerate(pairs):
        left -= len(pair[0]) + len(pair[1]) + PAIR_BYTES
        if left < 0:
            return max(number, 1)
    return len(pairs)


def check_answer(store: Store, operations: Sequence[Command]) -> None:
    """Raise RequestTooLarge where the ranges that these would answer with are too many bytes."""
    pairs: list[Kv] = []
    for operation in operations:
        _, key, end, *options = operation
        if not end or operation[0] == "put":
            continue
        if operation[0] == "delete":
            if options[0]:
                pairs += store.range(key, end).kvs
            continue
        limit, revision, keys_only, count_only = options
        if not count_only:
            found = store.range(key, end, limit=limit, revision=revision, keys_only=keys_only)
            pairs += found.kvs
    if len(pairs) > 1 and fitting(pairs) < len(pairs):
        raise RequestTooLarge(
            f"etcdserver: the answer would be larger than {ANSWER_BYTES_MAX} bytes; nothing was "
            "done: read the range outside of the transaction, or in parts"
        )


def has_pairs(command: Command, result: Sequence[Any]) -> bool:
    """Whether there are pairs in the result of a command, which may be large then."""
    if result[0] == "error":
        return False
    if command[0] == "txn":
        return any(len(row) == 4 or bool(row[-1]) for row in result[2])
    return command[0] in ("put", "delete") and bool(result[-1])
