"""What the client gives and takes: plain named tuples, and the parts of a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

__all__ = [
    "FROM_KEY",
    "Event",
    "KeyValue",
    "RangeResult",
    "TxnResult",
    "WatchBatch",
    "compare",
    "delete_op",
    "get_op",
    "prefix_end",
    "put_op",
]

FROM_KEY = b"\0"
"""As the end of a range: every key from its start on."""


class KeyValue(NamedTuple):
    """A pair at a revision. After a deletion (in events) version and create_revision are 0."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class RangeResult(NamedTuple):
    """`count` ignores the limit; `more` tells that the limit cut; `revision` is the store's."""

    kvs: list[KeyValue]
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed
    more: bool
    revision: int


class TxnResult(NamedTuple):
    """`results` holds, per operation of the branch taken: for a put `[revision, previous or
    None]`, for a delete `[revision, deleted, previous ones]`, for a get a RangeResult."""

    succeeded: bool
    revision: int
    results: list[Any]


class Event(NamedTuple):
    type: Literal["put", "delete"]
    kv: KeyValue
    prev_kv: KeyValue | None


class WatchBatch(NamedTuple):
    """Events of whole revisions up to `revision`; none of them: news of progress.

    Watches of one range may share it: don't change the list.
    """

    revision: int
    events: list[Event]


def prefix_end(prefix: bytes) -> bytes:
    """The end that makes a range of all keys with this prefix."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else FROM_KEY


# --- parts of a transaction ---------------------------------------------------------------------

Target = Literal["value", "version", "create", "mod", "lease"]
Operator = Literal["=", "!=", "<", ">"]


def compare(
    key: bytes, target: Target, operator: Operator, operand: int | bytes, end: bytes | None = None
) -> list[Any]:
    """`compare(key, "mod", "=", 0)`: the key does not exist."""
    return [key, end, target, operator, operand]


def put_op(key: bytes, value: bytes, lease: int = 0, *, prev_kv: bool = False) -> list[Any]:
    return ["put", key, value, lease, prev_kv]


def delete_op(key: bytes, end: bytes | None = None, *, prev_kv: bool = False) -> list[Any]:
    return ["delete", key, end, prev_kv]


def get_op(
    key: bytes,
    end: bytes | None = None,
    *,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
    count_only: bool = False,
) -> list[Any]:
    return ["range", key, end, limit, revision, keys_only, count_only]


def range_result(fields: Sequence[Any]) -> RangeResult:
    kvs, count, more, revision = fields
    return RangeResult([KeyValue(*kv) for kv in kvs], count, more, revision)


def event(fields: Sequence[Any]) -> Event:
    kind, kv, previous = fields
    return Event(kind, KeyValue(*kv), None if previous is None else KeyValue(*previous))
