"""Our errors as etcd's: gRPC's status code, and the exact text that clients compare. Pure."""

from __future__ import annotations

from typing import Final

from raftkv import errors
from raftkv.errors import KvError
from raftkv.etcd.rpc import RpcError, Status

__all__ = [
    "bad_leader_transferee",
    "bad_urls",
    "lease_provided",
    "no_leader",
    "not_learner",
    "peer_url_exists",
    "rpc_error",
    "timed_out",
    "value_provided",
]

EXACT: Final[tuple[tuple[type[KvError], Status], ...]] = (
    (errors.EmptyKey, Status.INVALID_ARGUMENT),
    (errors.KeyNotFound, Status.INVALID_ARGUMENT),
    (errors.DuplicateKey, Status.INVALID_ARGUMENT),
    (errors.TooManyOps, Status.INVALID_ARGUMENT),
    (errors.RequestTooLarge, Status.INVALID_ARGUMENT),
    (errors.Compacted, Status.OUT_OF_RANGE),
    (errors.FutureRevision, Status.OUT_OF_RANGE),
    (errors.NoSpace, Status.RESOURCE_EXHAUSTED),
    (errors.LeaseNotFound, Status.NOT_FOUND),
    (errors.LeaseExists, Status.FAILED_PRECONDITION),
    (errors.LeaseTtlTooLarge, Status.OUT_OF_RANGE),
    (errors.MemberNotFound, Status.NOT_FOUND),
    (errors.MemberExists, Status.FAILED_PRECONDITION),
    (errors.LearnerNotReady, Status.FAILED_PRECONDITION),
    (errors.TooManyLearners, Status.FAILED_PRECONDITION),
    (errors.UnhealthyCluster, Status.UNAVAILABLE),
    (errors.TooManyRequests, Status.RESOURCE_EXHAUSTED),
    (errors.NoLeader, Status.UNAVAILABLE),
    (errors.NotLeader, Status.FAILED_PRECONDITION),
    (errors.LeaderChanged, Status.UNAVAILABLE),
    (errors.Timeout, Status.UNAVAILABLE),
    (errors.Corrupt, Status.DATA_LOSS),
)
"""etcd has an error of this very text, and clients know it by that."""


def rpc_error(error: KvError) -> RpcError:
    """What a call ends with that met this error."""
    for kind, status in EXACT:
        if isinstance(error, kind):
            return RpcError(status, kind.text)
    if isinstance(error, errors.UnknownOutcome):
        return RpcError(
            Status.UNAVAILABLE,
            "etcdserver: request timed out, possibly due to previous leader failure",
        )
    if isinstance(error, errors.InvalidRequest):
        return RpcError(Status.INVALID_ARGUMENT, str(error))
    return RpcError(Status.UNAVAILABLE, str(error))


def timed_out() -> RpcError:
    return RpcError(Status.UNAVAILABLE, errors.Timeout.text)


def no_leader() -> RpcError:
    return RpcError(Status.UNAVAILABLE, errors.NoLeader.text)


def value_provided() -> RpcError:
    return RpcError(Status.INVALID_ARGUMENT, "etcdserver: value is provided")


def lease_provided() -> RpcError:
    return RpcError(Status.INVALID_ARGUMENT, "etcdserver: lease is provided")


def bad_urls() -> RpcError:
    return RpcError(Status.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")


def peer_url_exists() -> RpcError:
    return RpcError(Status.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")


def not_learner() -> RpcError:
    return RpcError(Status.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")


def bad_leader_transferee() -> RpcError:
    return RpcError(Status.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
