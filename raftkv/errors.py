"""Everything that can go wrong and is expected to: one tree, shared by server and client.

Names and texts are etcd's, because people and programs match on them. `code` is the stable word
for the wire; the class is found again by `from_wire`. Broken invariants are AssertionErrors and
are not listed here: nobody catches those.

What a client may conclude from an error is told by three bases:

- `NotApplied`: the request certainly had no effect; it may be sent again, here or elsewhere.
- `UnknownOutcome`: a write may or may not have taken place; only its author can tell by reading.
- the rest: the request was understood and refused; sending it again gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = [
    "BY_CODE",
    "Compacted",
    "Corrupt",
    "DuplicateKey",
    "EmptyKey",
    "FutureRevision",
    "InvalidRequest",
    "KeyNotFound",
    "KvError",
    "LeaderChanged",
    "LeaseExists",
    "LeaseNotFound",
    "LeaseTtlTooLarge",
    "LearnerNotReady",
    "MemberExists",
    "MemberNotFound",
    "MemberRemoved",
    "NoLeader",
    "NoSpace",
    "NotApplied",
    "NotCapable",
    "NotLeader",
    "ProposalDropped",
    "ProtocolError",
    "RequestTooLarge",
    "SnapshotDamaged",
    "StorageFailed",
    "Timeout",
    "TooManyLearners",
    "TooManyOps",
    "TooManyRequests",
    "Unavailable",
    "UnhealthyCluster",
    "UnknownOutcome",
    "WalDamaged",
    "WrongCluster",
    "from_wire",
    "to_wire",
]


class KvError(Exception):
    """Base of all. `str(error)` is a sentence that can be shown to a user as it is."""

    code: ClassVar[str] = "Error"
    text: ClassVar[str] = "etcdserver: request failed"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.text)

    def details(self) -> list[Any]:
        """What `from_details` needs to build the same error again; plain msgpack-able values."""
        return []

    @classmethod
    def from_details(cls, message: str, details: Sequence[Any]) -> KvError:
        return cls(message)


class NotApplied(KvError):
    """The request had no effect and may be repeated."""

    code = "NotApplied"
    text = "etcdserver: request was not applied"


# --- the request is at fault --------------------------------------------------------------------


class InvalidRequest(KvError):
    code = "InvalidRequest"
    text = "etcdserver: invalid request"


class EmptyKey(InvalidRequest):
    code = "EmptyKey"
    text = "etcdserver: key is not provided"


class KeyNotFound(InvalidRequest):
    """A put that is to keep the value or the lease of a key that doesn't exist."""

    code = "KeyNotFound"
    text = "etcdserver: key not found"


class DuplicateKey(InvalidRequest):
    code = "DuplicateKey"
    text = "etcdserver: duplicate key given in txn request"


class TooManyOps(InvalidRequest):
    code = "TooManyOps"
    text = "etcdserver: too many operations in txn request"


class RequestTooLarge(InvalidRequest):
    code = "RequestTooLarge"
    text = "etcdserver: request is too large"


class ProtocolError(InvalidRequest):
    """The bytes are not what this protocol sends. The connection can't be used any further."""

    code = "ProtocolError"
    text = "the other side does not speak this protocol"


# --- revisions ----------------------------------------------------------------------------------


class Compacted(KvError):
    """`compact_revision` is the oldest revision that can still be read; 0 where not known."""

    code = "Compacted"
    text = "etcdserver: mvcc: required revision has been compacted"

    def __init__(self, message: str = "", compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision

    def details(self) -> list[Any]:
        return [self.compact_revision]

    @classmethod
    def from_details(cls, message: str, details: Sequence[Any]) -> KvError:
        return cls(message, details[0] if details else 0)


class FutureRevision(KvError):
    code = "FutureRevision"
    text = "etcdserver: mvcc: required revision is a future revision"


class NoSpace(KvError):
    code = "NoSpace"
    text = "etcdserver: mvcc: database space exceeded"


# --- leases -------------------------------------------------------------------------------------


class LeaseNotFound(KvError):
    code = "LeaseNotFound"
    text = "etcdserver: requested lease not found"


class LeaseExists(KvError):
    code = "LeaseExists"
    text = "etcdserver: lease already exists"


class LeaseTtlTooLarge(KvError):
    code = "LeaseTtlTooLarge"
    text = "etcdserver: too large lease TTL"


# --- the cluster is not able at the moment ------------------------------------------------------


class Unavailable(NotApplied):
    """No member could be reached, or the one asked can't serve; nothing was applied."""

    code = "Unavailable"
    text = "etcdserver: unavailable"


class NoLeader(NotApplied):
    code = "NoLeader"
    text = "etcdserver: no leader"


class NotLeader(NotApplied):
    """`leader` is the id of the leader as far as known (0: unknown), `address` where clients
    reach it (`HOST:PORT`, empty: unknown)."""

    code = "NotLeader"
    text = "etcdserver: not leader"

    def __init__(self, leader: int = 0, address: str = "", message: str = "") -> None:
        super().__init__(message)
        self.leader = leader
        self.address = address

    def details(self) -> list[Any]:
        return [self.leader, self.address]

    @classmethod
    def from_details(cls, message: str, details: Sequence[Any]) -> KvError:
        leader, address = details if len(details) == 2 else (0, "")
        return cls(leader, address, message)


class ProposalDropped(NotApplied):
    """The leader would not take the proposal now (transfer going on, or too much uncommitted)."""

    code = "ProposalDropped"
    text = "raft proposal dropped"


class TooManyRequests(NotApplied):
    code = "TooManyRequests"
    text = "etcdserver: too many requests"


class LeaderChanged(KvError):
    """For a read: ask again. A write that meets it ends as `UnknownOutcome` at the client."""

    code = "LeaderChanged"
    text = "etcdserver: leader changed"


class Timeout(KvError):
    code = "Timeout"
    text = "etcdserver: request timed out"


class UnknownOutcome(KvError):
    """A write was sent and its answer was lost: it may have taken place, once, or not at all."""

    code = "UnknownOutcome"
    text = "the outcome of the write is unknown: it may or may not have been applied"


# --- members ------------------------------------------------------------------------------------


class MemberNotFound(KvError):
    code = "MemberNotFound"
    text = "etcdserver: member not found"


class MemberExists(KvError):
    code = "MemberExists"
    text = "etcdserver: member ID already exist"


class MemberRemoved(KvError):
    """This member has no part in the cluster any more and must stop."""

    code = "MemberRemoved"
    text = "the member has been permanently removed from the cluster"


class UnhealthyCluster(KvError):
    code = "UnhealthyCluster"
    text = "etcdserver: unhealthy cluster"


class LearnerNotReady(KvError):
    code = "LearnerNotReady"
    text = "etcdserver: can only promote a learner member which is in sync with leader"


class TooManyLearners(KvError):
    code = "TooManyLearners"
    text = "etcdserver: too many learner members in cluster"


class NotCapable(KvError):
    code = "NotCapable"
    text = "etcdserver: not capable"


class WrongCluster(KvError):
    """A peer of another cluster, or one that comes with an id but not with its data."""

    code = "WrongCluster"
    text = "etcdserver: cluster ID mismatch"


# --- storage ------------------------------------------------------------------------------------


class Corrupt(KvError):
    code = "Corrupt"
    text = "etcdserver: corrupt cluster"


class StorageFailed(KvError):
    """The disk refused (full, I/O error). The process must end: what is durable is unknown."""

    code = "StorageFailed"
    text = "etcdserver: storage failed"


class WalDamaged(Corrupt):
    """The log is damaged where a crash can't have done it: the server must not start on it."""

    code = "WalDamaged"
    text = "the write-ahead log is damaged"

    def __init__(self, file: str, offset: int, advice: str, reason: str = "damaged") -> None:
        super().__init__(f"{file} is damaged at byte {offset}: {reason}; {advice}")
        self.file = file
        self.offset = offset
        self.advice = advice
        self.reason = reason

    def details(self) -> list[Any]:
        return [self.file, self.offset, self.advice, self.reason]

    @classmethod
    def from_details(cls, message: str, details: Sequence[Any]) -> KvError:
        if len(details) != 4:
            return Corrupt(message)
        return cls(*details)


class SnapshotDamaged(Corrupt):
    code = "SnapshotDamaged"
    text = "the snapshot is damaged: its checksum does not match its contents"


def _tree(base: type[KvError]) -> list[type[KvError]]:
    found = [base]
    for child in base.__subclasses__():
        found += _tree(child)
    return found


BY_CODE: dict[str, type[KvError]] = {error.code: error for error in _tree(KvError)}


def to_wire(error: KvError) -> list[Any]:
    """`[code, message, details]`, msgpack-able."""
    return [error.code, str(error), error.details()]


def from_wire(code: str, message: str, details: Sequence[Any] = ()) -> KvError:
    """The error that `to_wire` was given; a code of a newer version becomes a plain KvError."""
    return BY_CODE.get(code, KvError).from_details(message, details)
