"""Linearizable reads, answered from the state machine once their index is applied.

Owns: the table of read operations. Synchronous; runs on the replica's task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from raftkv.errors import InvalidRequest, KvError, TooManyRequests
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.sizes import fitting
from raftkv.server.inbox import Read
from raftkv.server.leasing import Leasing
from raftkv.wire.protocol import COUNT_ONLY, KEYS_ONLY, error_result

__all__ = ["SWAMPED", "answer_reads", "range_result"]

LARGE = frozenset({"range", "txn", "lease_time_to_live"})
"""What may be answered with many bytes."""
SWAMPED = "etcdserver: too many bytes wait on this connection to be read; read them, then ask again"


def range_result(machine: Machine, arguments: list[Any]) -> list[Any]:
    """`[kvs, count, more, revision]`, cut where it would be too large for one answer.

    Raises EmptyKey, Compacted, FutureRevision.
    """
    key, end, limit, revision, options = arguments
    found = machine.range(
        key,
        end,
        limit=limit,
        revision=revision,
        keys_only=bool(options & KEYS_ONLY),
        count_only=bool(options & COUNT_ONLY),
    )
    room = fitting(found.kvs)
    if room < len(found.kvs):
        found = found._replace(kvs=found.kvs[:room], more=True)
    return list(found)


def answer_reads(reads: list[Read], machine: Machine, leasing: Leasing) -> None:
    for read in reads:
        try:
            if read.op in LARGE and read.session.swamped:
                raise TooManyRequests(SWAMPED)
            result = READS[read.op](read, machine, leasing)
        except KvError as error:
            result = error_result(error)
        if read.op in LARGE and result is not None:
            read.session.reply_packed(read.request_id, result)
        elif result is not None:
            read.session.reply(read.request_id, result)


def check_arguments(op: str, arguments: list[Any]) -> None:
    """Raise InvalidRequest for arguments that the operation does not take."""
    if tuple(map(type, arguments)) != SHAPES[op]:
        raise InvalidRequest(f"{op} has {len(SHAPES[op])} arguments, see the protocol")


def _keep_alive(read: Read, machine: Machine, leasing: Leasing) -> list[Any] | None:
    return leasing.keep_alive(read, trio.current_time())


def _time_to_live(read: Read, machine: Machine, leasing: Leasing) -> list[Any]:
    return leasing.time_to_live(read, trio.current_time())


def _leases(read: Read, machine: Machine, leasing: Leasing) -> list[Any]:
    return [machine.revision, sorted(lease.id for lease in machine.leases)]


READS: dict[str, Callable[[Read, Machine, Leasing], list[Any] | None]] = {
    "range": lambda read, machine, _: range_result(machine, read.arguments),
    "txn": lambda read, machine, _: machine.apply(read.arguments)[0],  # it writes nothing
    "revision": lambda read, machine, _: [machine.revision],
    "members": lambda read, _, __: read.arguments[0](),
    "lease_keep_alive": _keep_alive,
    "lease_time_to_live": _time_to_live,
    "leases": _leases,
}
SHAPES: dict[str, tuple[type, ...]] = {
    "revision": (),
    "lease_keep_alive": (int,),
    "lease_time_to_live": (int, bool),
    "leases": (),
}
