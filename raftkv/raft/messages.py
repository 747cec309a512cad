"""The words that members exchange, and the records they keep.

Owns: entries, hard state, snapshots, every message of the protocol, and their form on the wire.
Assumes: nothing. Never does: interpret a message (the role files do that).

All are NamedTuples: they are made by the thousand, are immutable, and msgpack packs them as
arrays without any conversion. Members are ints > 0; 0 means none. Indexes begin with 1; index 0
with term 0 is the empty place before the first entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from raftkv.raft.errors import MessageError

__all__ = [
    "MEMBERSHIP",
    "NORMAL",
    "AppendEntries",
    "AppendResponse",
    "Entry",
    "HardState",
    "Heartbeat",
    "HeartbeatResponse",
    "InstallSnapshot",
    "Message",
    "PreVoteResponse",
    "RequestPreVote",
    "RequestVote",
    "Snapshot",
    "SnapshotMeta",
    "TimeoutNow",
    "VoteResponse",
    "from_wire",
    "to_wire",
]

NORMAL = 0  # the state machine's; empty data is the no-op of a new leader, to be skipped
MEMBERSHIP = 1  # data is a configuration: raftkv.raft.membership.decode


class Entry(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    term: int
    kind: int
    data: bytes


class HardState(NamedTuple):
    """One atomic durable record. `commit` is a hint that shortens recovery, never a promise."""

    term: int = 0
    vote: int = 0
    commit: int = 0


class SnapshotMeta(NamedTuple):
    """The place in the log that a snapshot stands for, and the membership at that place."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    term: int
    voters: tuple[int, ...]
    learners: tuple[int, ...]


class Snapshot(NamedTuple):
    meta: SnapshotMeta
    data: bytes


class RequestPreVote(NamedTuple):
    """Would you vote for me? `term` is the one the sender would campaign in (its own + 1)."""

    to: int
    sender: int
    term: int
    last_index: int
    last_term: int


class PreVoteResponse(NamedTuple):
    """`term`: the asked-for term when granted, the responder's own when not."""

    to: int
    sender: int
    term: int
    granted: bool


class RequestVote(NamedTuple):
    """`transfer`: the old leader asked for this election, so its lease does not count."""

    to: int
    sender: int
    term: int
    last_index: int
    last_term: int
    transfer: bool


class VoteResponse(NamedTuple):
    to: int
    sender: int
    term: int
    granted: bool


class AppendEntries(NamedTuple):
    """`reply` False: news of the commit index alone, answered only when the log does not match."""

    to: int
    sender: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    reply: bool
    entries: Sequence[Entry]


class AppendResponse(NamedTuple):
    """Accepted: the log matches the leader's up to `index`, durably.

    Rejected: it does not match at `index` (the request's prev_index); it may match at or below
    `hint_index`, where the responder's term is `hint_term`.
    """

    to: int
    sender: int
    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    rejected: bool
    hint_index: int
    hint_term: int


class Heartbeat(NamedTuple):
    """`commit` never exceeds what the receiver acknowledged; `sequence` numbers read rounds."""

    to: int
    sender: int
    term: int
    commit: int
    sequence: int


class HeartbeatResponse(NamedTuple):
    to: int
    sender: int
    term: int
    sequence: int


class InstallSnapshot(NamedTuple):
    """Replace your log and state by this snapshot.

    The core knows only the meta: it sends this with `snapshot.data == b""`. The sender's shell
    puts in its newest durable snapshot (meta *and* data; its index may be higher than asked for),
    and tells the core the outcome by report_snapshot. The receiver's shell steps the message
    only when all the data is there. The answer is an AppendResponse.
    """

    to: int
    sender: int
    term: int
    snapshot: Snapshot


class TimeoutNow(NamedTuple):
    """Campaign at once: leadership is being handed to you."""

    to: int
    sender: int
    term: int


Message = (
    RequestPreVote
    | PreVoteResponse
    | RequestVote
    | VoteResponse
    | AppendEntries
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | InstallSnapshot
    | TimeoutNow
)

# The numbers are part of the protocol: never reuse one.
_CODES: dict[type[Any], int] = {
    RequestPreVote: 1,
    PreVoteResponse: 2,
    RequestVote: 3,
    VoteResponse: 4,
    AppendEntries: 5,
    AppendResponse: 6,
    Heartbeat: 7,
    HeartbeatResponse: 8,
    InstallSnapshot: 9,
    TimeoutNow: 10,
}
_CLASSES: dict[int, type[Any]] = {code: cls for cls, code in _CODES.items()}
_SHAPES: dict[int, tuple[type[Any], ...]] = {
    1: (int, int, int, int, int),
    2: (int, int, int, bool),
    3: (int, int, int, int, int, bool),
    4: (int, int, int, bool),
    5: (int, int, int, int, int, int, bool, list),
    6: (int, int, int, int, bool, int, int),
    7: (int, int, int, int, int),
    8: (int, int, int, int),
    9: (int, int, int, list),
    10: (int, int, int),
}


def to_wire(message: Message) -> list[Any]:
    """`[code, to, sender, term, ...]`, ready for msgpack (entries stay tuples: arrays there)."""
    return [_CODES[type(message)], *message]


def from_wire(fields: Sequence[Any]) -> Message:
    """The message in a decoded msgpack array (arrays as lists). Raises MessageError."""
    code = fields[0] if fields else None
    shape = _SHAPES.get(code) if type(code) is int else None
    if shape is None or tuple(map(type, fields[1:])) != shape:
        raise MessageError(f"not a Raft message: code {code!r} with {len(fields)} fields")
    assert type(code) is int
    cls = _CLASSES[code]
    if cls is AppendEntries:
        to, sender, term, prev_index, prev_term, commit, reply, rows = fields[1:]
        entries = _entries_from_wire(prev_index, rows)
        return AppendEntries(to, sender, term, prev_index, prev_term, commit, reply, entries)
    if cls is InstallSnapshot:
        to, sender, term, row = fields[1:]
        return InstallSnapshot(to, sender, term, _snapshot_from_wire(row))
    message: Message = cls(*fields[1:])
    return message


def _entries_from_wire(prev_index: int, rows: list[Any]) -> list[Entry]:
    entries: list[Entry] = []
    index = prev_index
    for row in rows:
        index += 1
        if type(row) is not list or len(row) != 4 or type(row[3]) is not bytes or row[0] != index:
            raise MessageError(f"entry {index} of an AppendEntries is malformed")
        entries.append(Entry(*row))
    return entries


def _snapshot_from_wire(row: list[Any]) -> Snapshot:
    try:
        (index, term, voters, learners), data = row
        meta = SnapshotMeta(index, term, tuple(voters), tuple(learners))
    except (TypeError, ValueError) as error:
        raise MessageError(f"malformed snapshot in an InstallSnapshot: {error}") from error
    if type(data) is not bytes or not all(type(id_) is int for id_ in meta.voters + meta.learners):
        raise MessageError("malformed snapshot in an InstallSnapshot")
    return Snapshot(meta, data)
