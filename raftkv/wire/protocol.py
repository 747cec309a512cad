"""The protocol: what is said in the frames between client and member, and between members.

This is the one place that documents it. Everything is a msgpack array in a frame (`framing`).

**Client to member**: `[id, op, *arguments]`. The id is a positive integer chosen by the client,
unique among its requests in flight; any number may be in flight, and replies come in any order.

| op | arguments | result |
|---|---|---|
| `hello` | version | `[cluster, member id, member name]`; sent first |
| `put` | key, value, lease, want_prev | `[revision, previous kv or nil]` |
| `delete` | key, end, want_prev | `[revision, deleted, previous kvs]` |
| `txn` | compares, success ops, failure ops | `[revision, succeeded, results]` |
| `compact` | revision | `[revision]` |
| `lease_grant` | id (0: server chooses), ttl in s | `[revision, id, ttl]` |
| `lease_revoke` | id | `[revision]` |
| `range` | key, end, limit, revision, options | `[kvs, count, more, revision]` |
| `revision` | | `[revision]`, linearizable |
| `lease_keep_alive` | id | `[revision, ttl]` |
| `lease_time_to_live` | id, want_keys | `[revision, ttl left or -1, granted ttl, keys]` |
| `leases` | | `[revision, ids]` |
| `watch` | watch id, key, end, start revision, options | `[revision]`: created |
| `watch_cancel` | watch id | `[revision]`: no push of that watch comes after it |
| `watch_progress` | watch id | `[revision]`; a progress push follows when the watch is synced; \
with the id -1: when all of this connection are |
| `status` | | `[map]` |
| `hash` | revision or 0 | `[revision, compacted revision, checksum]` of this member's own state |
| `snapshot_open` | | `[revision]`: a backup of this member's state now, one a connection |
| `snapshot_read` | | `[bytes]`: its next piece, empty at the end |
| `members` | linearizable? | `[[id, name, peer address, client address, leads, learns] ...]` |
| `move_leader` | member id | `[]` |
| `member_add` | id, name, peer address, promote | `[revision]`; a learner, to be a voter if so |
| `member_remove` | id | `[revision]` |
| `member_promote` | id | `[revision]`: the learner is a voter now |

A key-value is `[key, value, create_revision, mod_revision, version, lease]`. `end` nil is the
single key, `b"\\0"` everything from the key on, else the half-open interval. A range is cut
before its limit (`more` is true) where it would be too many bytes (`raftkv.mvcc.sizes`): who wants
the rest asks from behind the last key, at the same revision.

**Member to client**: `[id, result]`, where an error is `["error", code, message, details]`
(codes: `raftkv.errors`), and pushes, whose id is 0:

| push | meaning |
|---|---|
| `[0, watch id, "events", revision, events]` | all its events up to `revision`, see below |
| `[0, watch id, "progress", revision]` | every event up to `revision` was sent before this |
| `[0, watch id, "canceled", error]` | the watch is over |

An event is `[type, kv, previous kv or nil]`, type "put" or "delete"; the events of one revision
are never split over two pushes. Where several watches of a connection are told the same events,
an array of their ids may stand for the watch id.

**Member to member**: one stream from each member to each other one, over which only the one who
opened it sends Raft messages (`raftkv.raft.messages.to_wire`), and a second one for snapshots.
The first message is `["peer", version, cluster, lineage, from id, to id, incarnation, purpose,
client address, peer address, name]`; the receiver answers it with `["ok", incarnation]`,
`["refused", reason]` or, to a member that has to stop, `["removed", reason]`, and is silent from
then on. The lineage is -1 for a member that has no log yet.
"""

from __future__ import annotations

from typing import Any, Final

from raftkv.errors import KvError, from_wire, to_wire

__all__ = [
    "ALL_WATCHES",
    "CANCELED",
    "COUNT_ONLY",
    "EVENTS",
    "KEYS_ONLY",
    "MAX_FRAME_FROM_CLIENT",
    "MAX_FRAME_FROM_MEMBER",
    "MAX_REQUEST_BYTES",
    "NO_DELETE",
    "NO_PUT",
    "PREV_KV",
    "PROGRESS",
    "PROGRESS_PUSH",
    "SERIALIZABLE",
    "VERSION",
    "WRITES",
    "error_of",
    "error_result",
    "is_error",
    "raise_error",
]

VERSION: Final = 1

MAX_REQUEST_BYTES: Final = 1536 * 1024
"""The largest single request; etcd's default."""
MAX_FRAME_FROM_CLIENT: Final = 4 * 1024 * 1024
"""A client that packs many requests together starts a new frame well below this."""
MAX_FRAME_FROM_MEMBER: Final = 1024 * 1024 * 1024

WRITES: Final = frozenset({"put", "delete", "txn", "compact", "lease_grant", "lease_revoke"})
"""Ops that become commands of the replicated log, as they are."""

# options of `range`
KEYS_ONLY: Final = 1
COUNT_ONLY: Final = 2
SERIALIZABLE: Final = 4

# options of `watch`
PREV_KV: Final = 1
NO_PUT: Final = 2
NO_DELETE: Final = 4
PROGRESS: Final = 8

ALL_WATCHES: Final = -1
"""As the id in `watch_progress` and its push: all watches of the connection."""

# kinds of push
EVENTS: Final = "events"
PROGRESS_PUSH: Final = "progress"
CANCELED: Final = "canceled"


def error_result(error: KvError) -> list[Any]:
    """An error where a result would stand."""
    return ["error", *to_wire(error)]


def is_error(result: Any) -> bool:
    return type(result) is list and len(result) >= 3 and result[0] == "error"


def error_of(result: list[Any]) -> KvError:
    """The error in a result for which `is_error` holds."""
    return from_wire(*result[1:4])


def raise_error(result: list[Any]) -> None:
    """The same, raised."""
    raise error_of(result)
