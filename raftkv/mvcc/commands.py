"""The shapes that go through the log, and the checks that need nothing but the command.

Commands and their results are plain msgpack-able sequences, so that the hot path converts
nothing. `validate` is called twice for each command: by the server before it proposes (a refusal
then costs no log entry) and by `Machine.apply` (so that no entry, whoever wrote it, can bring a
replica down). It sees only the command, never state: state-dependent refusals are the machine's.

    ["put", key, value, lease, want_prev]        -> [revision, previous or None]
    ["delete", key, end, want_prev]              -> [revision, deleted, previous ones]
    ["range", key, end, limit, revision, keys_only, count_only]   (inside a txn only)
                                                 -> [kvs, count, more, revision]
    ["txn", compares, success, failure]          -> [revision, succeeded, results]
        compare: [key, end, target, operator, operand]
    ["compact", revision]                        -> [revision]
    ["lease_grant", id, ttl]                     -> [revision, id, ttl]
    ["lease_revoke", id]                         -> [revision]
    ["lease_checkpoint", id, remaining]          -> [revision]
    ["member_add", id, name, peer address, promote]                       -> [revision]
    ["member_info", id, name, peer address, client address, incarnation]  -> [revision]
    ["member_remove", id]                        -> [revision]
    ["check", revision, digest]                  -> [revision, equal], see Machine._check
    any refusal                                  -> ["error", code, message]

A put with None for its value or its lease keeps the one that the key has, and there must be one.
`end` is None (or empty) for the single key, b"\\0" for every key from `key` on, else the first
key no longer meant. A txn in a txn is not offered: Kubernetes never uses one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from raftkv.errors import (
    DuplicateKey,
    EmptyKey,
    InvalidRequest,
    LeaseTtlTooLarge,
    TooManyOps,
)

__all__ = [
    "Command",
    "Event",
    "FROM_KEY",
    "Kv",
    "LEASE_TTL_MAX",
    "RangeResult",
    "TXN_OPS_MAX",
    "is_prefix",
    "is_read_only",
    "operations_in",
    "prefix_end",
    "validate",
]

Kv = tuple[bytes, bytes, int, int, int, int]
"""(key, value, create_revision, mod_revision, version, lease); a tombstone has version 0."""
Event = tuple[str, Kv, Kv | None]
"""("put" | "delete", the pair after, the pair before or None)."""
Command = Sequence[Any]

FROM_KEY: Final = b"\0"
TXN_OPS_MAX: Final = 128
LEASE_TTL_MAX: Final = 9_000_000_000
"""Seconds; etcd's bound."""
INTEGER_MAX: Final = 2**63 - 1
TEXT_MAX: Final = 1000
SEQUENCES: Final = (list, tuple)


class RangeResult(NamedTuple):
    """`count` ignores the limit, `more` says that it cut, `revision` is the store's own."""

    kvs: list[Kv]
    count: int  # type: ignore[assignment]  # shadows tuple.count, which nobody needs here
    more: bool
    revision: int


def prefix_end(prefix: bytes) -> bytes:
    """The end that makes `[prefix, end)` all keys with that prefix."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return FROM_KEY
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def is_prefix(key: bytes, end: bytes | None) -> bool:
    """Whether [key, end) is what `prefix_end` makes of `key`."""
    return bool(end) and prefix_end(key) == end


def _key(value: object) -> None:
    if type(value) is not bytes:
        raise InvalidRequest(f"a key is bytes, not {type(value).__name__}")
    if not value:
        raise EmptyKey


def _end(value: object) -> None:
    if value is not None and type(value) is not bytes:
        raise InvalidRequest(f"the end of a range is bytes or nil, not {type(value).__name__}")


def _integer(value: object, what: str, least: int = 0) -> None:
    if type(value) is not int or not least <= value <= INTEGER_MAX:
        raise InvalidRequest(f"{what} is an integer from {least} on, not {value!r:.50}")


def _length(command: Command, length: int) -> None:
    if len(command) != length:
        raise InvalidRequest(f"{command[0]} has {length - 1} arguments, not {len(command) - 1}")


def _put(command: Command) -> None:
    if len(command) != 5:
        _length(command, 5)
    _, key, value, lease, _ = command
    if type(key) is not bytes or not key:
        _key(key)
    if type(value) is not bytes and value is not None:
        raise InvalidRequest(f"a value is bytes or nil, not {type(value).__name__}")
    if lease is not None and lease != 0:
        _integer(lease, "a lease id")


def _delete(command: Command) -> None:
    _length(command, 4)
    _key(command[1])
    _end(command[2])


def _range(command: Command) -> None:
    _length(command, 7)
    _key(command[1])
    _end(command[2])
    _integer(command[3], "limit")
    _integer(command[4], "revision")


TARGETS: Final = ("value", "version", "create", "mod", "lease")
OPERATORS: Final = ("=", "!=", "<", ">")


def _compare(compare: Command) -> None:
    if not isinstance(compare, SEQUENCES) or len(compare) != 5:
        raise InvalidRequest("a compare is [key, end, target, operator, operand]")
    key, end, target, operator, operand = compare
    _key(key)
    _end(end)
    if target not in TARGETS:
        raise InvalidRequest(f"compare target {target!r:.50} is none of {', '.join(TARGETS)}")
    if operator not in OPERATORS:
        raise InvalidRequest(f"compare operator {operator!r:.50} is none of = != < >")
    if target == "value":
        if type(operand) is not bytes:
            raise InvalidRequest("a value is compared with bytes")
    elif type(operand) is not int:
        raise InvalidRequest(f"{target} is compared with an integer")


Deletes = list[tuple[bytes, bytes | None]]


def _branch(ops: Command, room: int) -> tuple[dict[bytes, None], Deletes]:
    """One branch of a transaction: no key may be put twice, or be put and deleted; its puts and
    deletes.

    The branches of a txn in it exclude each other, so both may put a key. As in etcd, deletes of
    this branch and of txns before count against the puts of a txn in it, those of later ones don't.
    """
    _check_operations(ops, room)
    puts: dict[bytes, None] = {}
    deletes: Deletes = [(op[1], op[2]) for op in ops if op[0] == "delete"]
    for op in ops:
        if op[0] == "txn":
            (then_puts, then_deletes), (else_puts, else_deletes) = _txn(op, room)
            for key in then_puts:
                _check_key(key, puts, deletes)
            for key in else_puts:
                _check_key(key, {} if key in then_puts else puts, deletes)
            puts |= then_puts | else_puts
            deletes += then_deletes + else_deletes
    for op in ops:
        if op[0] == "put":
            _check_key(op[1], puts, deletes)
            puts[op[1]] = None
    return puts, deletes


def _check_operations(ops: Command, room: int) -> None:
    for op in ops:
        if not isinstance(op, SEQUENCES) or not op or type(op[0]) is not str:
            raise InvalidRequest("an operation in a txn is a list that begins with its name")
        if op[0] == "txn":
            continue
        check = IN_TXN.get(op[0])
        if check is None:
            raise InvalidRequest("an operation in a txn is a put, a delete, a range or a txn")
        check(op)


def _check_key(key: bytes, puts: dict[bytes, None], deletes: Deletes) -> None:
    """Raise DuplicateKey for a put of what is put or deleted already."""
    if key in puts:
        raise DuplicateKey
    for start, end in deletes:
        if key == start if not end else key >= start and (end == FROM_KEY or key < end):
            raise DuplicateKey


def _txn(command: Command, room: int = TXN_OPS_MAX) -> Any:
    """Checks a txn that may hold `room` operations; the puts and deletes of its branches."""
    _length(command, 4)
    for part in command[1:]:
        if not isinstance(part, SEQUENCES):
            raise InvalidRequest("a txn is [compares, success operations, failure operations]")
    most = max(len(part) for part in command[1:])
    if most > room:
        raise TooManyOps
    for compare in command[1]:
        _compare(compare)
    return _branch(command[2], room - most), _branch(command[3], room - most)


def _compact(command: Command) -> None:
    _length(command, 2)
    _integer(command[1], "revision")


def _lease_grant(command: Command) -> None:
    _length(command, 3)
    _integer(command[1], "a lease id", 1)
    _integer(command[2], "a lease's TTL in seconds", 1)
    if command[2] > LEASE_TTL_MAX:
        raise LeaseTtlTooLarge


def _lease_revoke(command: Command) -> None:
    _length(command, 2)
    _integer(command[1], "a lease id", 1)


def _lease_checkpoint(command: Command) -> None:
    _length(command, 3)
    _integer(command[1], "a lease id", 1)
    _integer(command[2], "the remaining TTL in seconds")


def _member_add(command: Command) -> None:
    _length(command, 5)
    _integer(command[1], "a member id", 1)
    _texts(command[2:4], "a member's name and address")


def _member_info(command: Command) -> None:
    _length(command, 6)
    _integer(command[1], "a member id", 1)
    _texts(command[2:5], "a member's name and addresses")
    _integer(command[5], "an incarnation")


def _member_remove(command: Command) -> None:
    _length(command, 2)
    _integer(command[1], "a member id", 1)


def _check(command: Command) -> None:
    _length(command, 3)
    _integer(command[1], "revision")
    _integer(command[2], "a digest")


def _texts(values: Sequence[object], what: str) -> None:
    for value in values:
        if type(value) is not str or len(value) > TEXT_MAX:
            raise InvalidRequest(f"{what} are texts of up to {TEXT_MAX} characters")


IN_TXN: Final[dict[str, Callable[[Command], None]]] = {
    "put": _put,
    "delete": _delete,
    "range": _range,
}
COMMANDS: Final[dict[str, Callable[[Command], object]]] = {
    "put": _put,
    "delete": _delete,
    "txn": _txn,
    "compact": _compact,
    "lease_grant": _lease_grant,
    "lease_revoke": _lease_revoke,
    "lease_checkpoint": _lease_checkpoint,
    "member_add": _member_add,
    "member_info": _member_info,
    "member_remove": _member_remove,
    "check": _check,
}


def validate(command: Command) -> None:
    """Raise the KvError that says what is wrong with the command, if anything is."""
    if not isinstance(command, SEQUENCES) or not command or type(command[0]) is not str:
        raise InvalidRequest("a command is a list that begins with its name")
    check = COMMANDS.get(command[0])
    if check is None:
        raise InvalidRequest(f"unknown command {command[0]!r:.50}")
    check(command)


def operations_in(txn: Command) -> Iterator[Command]:
    """The operations of all branches of a (valid) txn, and of those in it."""
    for branch in txn[2:]:
        for operation in branch:
            if operation[0] == "txn":
                yield from operations_in(operation)
            else:
                yield operation


def is_read_only(command: Command) -> bool:
    """Whether this (valid) command is a txn that can't write, to be answered as a read."""
    return command[0] == "txn" and all(op[0] == "range" for op in operations_in(command))
