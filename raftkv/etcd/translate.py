"""Requests of etcd's API as the store's own, and the store's results as etcd's responses. Pure.

The store's side of each is described in `raftkv.wire.protocol` and `raftkv.mvcc.commands`. What
etcd checks before it looks at any state is checked here where the store would not, or with
another error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from raftkv.errors import EmptyKey, InvalidRequest, KeyNotFound, LeaseNotFound, TooManyOps
from raftkv.etcd.outcomes import lease_provided, value_provided
from raftkv.etcd.ranges import arranged, needs_all
from raftkv.etcd.schema import MESSAGES

__all__ = [
    "delete_command",
    "delete_response",
    "event",
    "put_command",
    "put_response",
    "range_operation",
    "range_parts",
    "range_response",
    "txn_command",
    "txn_response",
    "writes",
]

KeyValue: Final = MESSAGES["KeyValue"]
Event: Final = MESSAGES["Event"]
Header: Final = MESSAGES["ResponseHeader"]
RangeResponse: Final = MESSAGES["RangeResponse"]
PutResponse: Final = MESSAGES["PutResponse"]
DeleteRangeResponse: Final = MESSAGES["DeleteRangeResponse"]
ResponseOp: Final = MESSAGES["ResponseOp"]
TxnResponse: Final = MESSAGES["TxnResponse"]

OPERATORS: Final = {0: "=", 1: ">", 2: "<", 3: "!="}
TARGETS: Final = {
    0: ("version", "version"),
    1: ("create", "create_revision"),
    2: ("mod", "mod_revision"),
    3: ("value", "value"),
    4: ("lease", "lease"),
}
"""Of a comparison: the store's word, and the member of the union that holds the operand."""
OPS_MAX: Final = 128
PART_PAIRS: Final = 1000


def key_value(pair: Sequence[Any]) -> Any:
    key, value, created, modified, version, lease = pair
    return KeyValue(
        key=key,
        value=value,
        create_revision=created,
        mod_revision=modified,
        version=version,
        lease=lease,
    )


def event(row: Sequence[Any]) -> Any:
    """An event as the protocol has it: `[type, pair, previous pair or nil]`."""
    kind, pair, previous = row
    found = Event(type=0 if kind == "put" else 1, kv=key_value(pair))
    if previous is not None:
        found.prev_kv.CopyFrom(key_value(previous))
    return found


# --- ranges -------------------------------------------------------------------------------------


def range_operation(request: Any) -> list[Any]:
    """`["range", key, end, limit, revision, keys_only, count_only]`. Raises EmptyKey.

    A value is read even if only keys are wanted, where they are to be sorted by it.
    """
    if not request.key:
        raise EmptyKey
    limit = 0 if needs_all(request) else max(request.limit, 0)
    if limit and request.sort_target:
        limit += 1  # sorted without an order: among the first ones and the next
    return [
        "range",
        request.key,
        request.range_end or None,
        limit,
        max(request.revision, 0),
        request.keys_only and not request.sort_target,
        request.count_only,
    ]


def range_response(request: Any, result: Sequence[Any], header: Any) -> Any:
    """Of `[kvs, count, more, revision]`."""
    first, *others = range_parts(request, result, header)
    for part in others:
        first.MergeFrom(part)
    return first


def range_parts(request: Any, result: Sequence[Any], header: Any) -> Iterator[Any]:
    """The same in parts of some milliseconds each: the response is their concatenation."""
    pairs, count, more, _ = result
    pairs, cut = arranged(request, pairs)
    yield RangeResponse(header=header, more=more or cut, count=count)
    for start in range(0, len(pairs), PART_PAIRS):
        part = pairs[start : start + PART_PAIRS]
        if request.keys_only:
            part = [(pair[0], b"", *pair[2:]) for pair in part]
        yield RangeResponse(kvs=[key_value(pair) for pair in part])


# --- writes -------------------------------------------------------------------------------------


def put_command(request: Any) -> list[Any]:
    """`["put", key, value, lease, want_prev]`. Raises KvError, RpcError."""
    if not request.key:
        raise EmptyKey
    if request.ignore_value and request.value:
        raise value_provided()
    if request.ignore_lease and request.lease:
        raise lease_provided()
    if request.lease < 0:
        raise LeaseNotFound
    return [
        "put",
        request.key,
        None if request.ignore_value else request.value,
        None if request.ignore_lease else request.lease,
        request.prev_kv,
    ]


def put_response(result: Sequence[Any], header: Any) -> Any:
    """Of `[revision, previous pair or nil]`."""
    previous = result[1]
    return PutResponse(header=header, prev_kv=None if previous is None else key_value(previous))


def delete_command(request: Any) -> list[Any]:
    """`["delete", key, end, want_prev]`. Raises EmptyKey."""
    if not request.key:
        raise EmptyKey
    return ["delete", request.key, request.range_end or None, request.prev_kv]


def delete_response(result: Sequence[Any], header: Any) -> Any:
    """Of `[revision, deleted, previous pairs]`."""
    _, deleted, previous = result
    return DeleteRangeResponse(
        header=header, deleted=deleted, prev_kvs=[key_value(pair) for pair in previous]
    )


# --- transactions -------------------------------------------------------------------------------


def txn_command(request: Any) -> list[Any]:
    """`["txn", compares, success, failure]`. Raises KvError, RpcError."""
    if max(len(request.compare), len(request.success), len(request.failure)) > OPS_MAX:
        raise TooManyOps
    return [
        "txn",
        [_compare(each) for each in request.compare],
        [_operation(each) for each in request.success],
        [_operation(each) for each in request.failure],
    ]


def _compare(compare: Any) -> list[Any]:
    if not compare.key:
        raise EmptyKey
    if compare.target not in TARGETS or compare.result not in OPERATORS:
        raise InvalidRequest("etcdserver: unknown target or result of a comparison")
    target, field = TARGETS[compare.target]
    # An operand of another kind than the target stands for zero, as in etcd.
    operand = getattr(compare, field)
    return [compare.key, compare.range_end or None, target, OPERATORS[compare.result], operand]


def _operation(operation: Any) -> list[Any]:
    kind = operation.WhichOneof("request")
    if kind == "request_range":
        return range_operation(operation.request_range)
    if kind == "request_put":
        return put_command(operation.request_put)
    if kind == "request_delete_range":
        return delete_command(operation.request_delete_range)
    if kind == "request_txn":
        return txn_command(operation.request_txn)
    raise KeyNotFound


def writes(command: Sequence[Any]) -> bool:
    """Whether this txn may change something."""
    return any(
        writes(op) if op[0] == "txn" else op[0] != "range"
        for branch in command[2:]
        for op in branch
    )


def txn_response(request: Any, result: Sequence[Any], header: Any) -> Any:
    """Of `[revision, succeeded, results]`; the headers of the parts hold their revision only."""
    _, succeeded, rows = result
    operations = request.success if succeeded else request.failure
    responses = [_part(op, row) for op, row in zip(operations, rows, strict=True)]
    return TxnResponse(header=header, succeeded=succeeded, responses=responses)


def _part(operation: Any, row: Sequence[Any]) -> Any:
    kind = operation.WhichOneof("request")
    if kind == "request_range":
        header = Header(revision=row[3])
        return ResponseOp(response_range=range_response(operation.request_range, row, header))
    header = Header(revision=row[0])
    if kind == "request_put":
        return ResponseOp(response_put=put_response(row, header))
    if kind == "request_delete_range":
        return ResponseOp(response_delete_range=delete_response(row, header))
    return ResponseOp(response_txn=txn_response(operation.request_txn, row, Header()))
