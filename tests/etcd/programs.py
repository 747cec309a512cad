"""Random programs of requests to etcd's API, and what a server makes of them.

A program is a list of steps from one seed; a step is a function of the state that both servers
must share by then, so that "two revisions ago" is the same request for both. Few keys, few values,
few leases: things shall collide.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from raftkv.etcd.schema import MESSAGES
from tests.etcd.client import EtcdClient, Refused, Stream

__all__ = ["Request", "WatchLog", "answer_of", "masked", "random_request", "random_watch"]

KEYS = (b"a", b"ab", b"b", b"ba", b"c", b"d")
ENDS = (b"", b"", b"b", b"bb", b"c", b"z", b"\0", b"a")
VALUES = (b"", b"1", b"2", b"3")
LEASES = (0, 0, 0, 1, 2, 3, 99)
LONG_TTL = 5_000


class Request(NamedTuple):
    service: str
    name: str
    message: Any


class Now(NamedTuple):
    """What requests refer to."""

    revision: int
    compacted: int


def _revision(rng: random.Random, now: Now) -> int:
    kind = rng.random()
    if kind < 0.5:
        return 0
    if kind < 0.9:
        return max(1, now.revision - rng.randrange(12))
    return rng.choice((now.compacted, now.compacted - 1, now.revision + 1, now.revision + 5, -1))


def random_range(rng: random.Random, now: Now) -> Any:
    request = MESSAGES["RangeRequest"](
        key=rng.choice((*KEYS, b"\0")),
        range_end=rng.choice(ENDS),
        limit=rng.choice((0, 0, 0, 1, 2, 3, 10)),
        revision=_revision(rng, now),
        serializable=rng.random() < 0.1,
        keys_only=rng.random() < 0.15,
        count_only=rng.random() < 0.15,
    )
    if rng.random() < 0.4:
        request.sort_order = rng.randrange(3)
        request.sort_target = rng.randrange(5)
    for bound in ("min_mod", "max_mod", "min_create", "max_create"):
        if rng.random() < 0.1:
            setattr(request, f"{bound}_revision", max(0, now.revision - rng.randrange(8)))
    return request


def random_put(rng: random.Random, now: Now) -> Any:
    request = MESSAGES["PutRequest"](
        key=rng.choice(KEYS),
        value=rng.choice(VALUES),
        lease=rng.choice(LEASES),
        prev_kv=rng.random() < 0.3,
    )
    if rng.random() < 0.15:
        request.ignore_value = True
        if rng.random() < 0.8:
            request.value = b""
    if rng.random() < 0.15:
        request.ignore_lease = True
        if rng.random() < 0.8:
            request.lease = 0
    if rng.random() < 0.02:
        request.key = b""
    return request


def random_delete(rng: random.Random, now: Now) -> Any:
    return MESSAGES["DeleteRangeRequest"](
        key=rng.choice(KEYS), range_end=rng.choice(ENDS), prev_kv=rng.random() < 0.4
    )


def random_compare(rng: random.Random, now: Now) -> Any:
    compare = MESSAGES["Compare"](
        key=rng.choice(KEYS), result=rng.randrange(4), target=rng.randrange(5)
    )
    if rng.random() < 0.2:
        compare.range_end = rng.choice(ENDS)
    operand = rng.choice((0, 0, 1, 2, now.revision, now.revision - rng.randrange(6)))
    fields = ("version", "create_revision", "mod_revision", "value", "lease")
    field = fields[compare.target] if rng.random() < 0.95 else rng.choice(fields)
    setattr(compare, field, rng.choice(VALUES) if field == "value" else operand)
    return compare


def random_operation(rng: random.Random, now: Now, depth: int) -> Any:
    kind = rng.random()
    RequestOp = MESSAGES["RequestOp"]
    if kind < 0.35:
        return RequestOp(request_put=random_put(rng, now))
    if kind < 0.65:
        inner = random_range(rng, now)
        inner.revision = max(0, inner.revision)  # below: "compacted" for etcd, but only in a txn
        return RequestOp(request_range=inner)
    if kind < 0.85 or depth > 1:
        delete = random_delete(rng, now)
        if delete.range_end == b"\0":  # etcd does not see that this overlaps with puts; we do
            delete.range_end = b"z"
        return RequestOp(request_delete_range=delete)
    if kind < 0.99:
        return RequestOp(request_txn=random_txn(rng, now, depth + 1))
    return RequestOp()


def random_txn(rng: random.Random, now: Now, depth: int = 0) -> Any:
    return MESSAGES["TxnRequest"](
        compare=[random_compare(rng, now) for _ in range(rng.choice((0, 1, 1, 2)))],
        success=[random_operation(rng, now, depth) for _ in range(rng.randrange(4))],
        failure=[random_operation(rng, now, depth) for _ in range(rng.randrange(4))],
    )


def random_compaction(rng: random.Random, now: Now) -> Any:
    revision = max(1, now.revision - rng.randrange(8))
    if rng.random() < 0.1:
        revision = now.revision + rng.randrange(3)
    return MESSAGES["CompactionRequest"](revision=revision, physical=rng.random() < 0.3)


def random_grant(rng: random.Random, now: Now) -> Any:
    ttl = LONG_TTL + rng.randrange(3)
    if rng.random() < 0.05:
        ttl = 10_000_000_000
    return MESSAGES["LeaseGrantRequest"](ID=rng.choice((1, 2, 3)), TTL=ttl)


REQUESTS: tuple[tuple[float, str, str, Callable[[random.Random, Now], Any]], ...] = (
    (0.30, "KV", "Put", random_put),
    (0.12, "KV", "DeleteRange", random_delete),
    (0.20, "KV", "Range", random_range),
    (0.20, "KV", "Txn", random_txn),
    (0.04, "KV", "Compact", random_compaction),
    (0.06, "Lease", "LeaseGrant", random_grant),
    (
        0.03,
        "Lease",
        "LeaseRevoke",
        lambda rng, _: MESSAGES["LeaseRevokeRequest"](ID=rng.choice((1, 2, 3, 99, 0))),
    ),
    (
        0.03,
        "Lease",
        "LeaseTimeToLive",
        lambda rng, _: MESSAGES["LeaseTimeToLiveRequest"](
            ID=rng.choice((1, 2, 3, 99)), keys=rng.random() < 0.7
        ),
    ),
    (0.02, "Lease", "LeaseLeases", lambda *_: MESSAGES["LeaseLeasesRequest"]()),
)


def random_request(rng: random.Random, revision: int, compacted: int) -> Request:
    weights = [row[0] for row in REQUESTS]
    _, service, name, make = rng.choices(REQUESTS, weights)[0]
    return Request(service, name, make(rng, Now(revision, compacted)))


def random_watch(rng: random.Random, revision: int, compacted: int) -> Any:
    start = rng.choice((0, 0, revision + 1, revision + 3, revision - 5, compacted - 1))
    if start <= compacted and rng.random() < 0.8:
        start = compacted + 1
    elif start == compacted:  # etcd up to 3.4.34 forgets a delete that was exactly there
        start = max(0, compacted - 1)
    return MESSAGES["WatchCreateRequest"](
        key=rng.choice((*KEYS, b"")),
        range_end=rng.choice(ENDS),
        start_revision=max(0, start),
        prev_kv=rng.random() < 0.5,
        filters=rng.choice(((), (), (0,), (1,), (0, 1))),
        watch_id=rng.choice((0, 0, 0, 5, 7)),
        fragment=rng.random() < 0.2,
    )


# --- what servers make of it --------------------------------------------------------------------


def masked(response: Any) -> Any:
    """The response without what is each server's own, and with the order that etcd leaves open."""
    header = response.header
    header.cluster_id = header.member_id = header.raft_term = 0
    kind = type(response).__name__
    if kind == "LeaseTimeToLiveResponse":
        response.keys[:] = sorted(response.keys)
        if response.TTL > 0:
            response.TTL = round(response.TTL, -2)
    elif kind == "LeaseLeasesResponse":
        ids = sorted(lease.ID for lease in response.leases)
        del response.leases[:]
        response.leases.extend(MESSAGES["LeaseStatus"](ID=each) for each in ids)
    return response


def answer_of(client: EtcdClient, request: Request) -> tuple[str, Any]:
    """("ok", response) or (status code, text)."""
    try:
        return "ok", masked(client.send(request.service, request.name, request.message))
    except Refused as error:
        return error.args[0], error.args[1]


class WatchLog:
    """One watch stream of one server, and all that came on it, by watch."""

    def __init__(self, client: EtcdClient) -> None:
        self._stream = Stream(client.channel, "/etcdserverpb.Watch/Watch", "WatchResponse", None)
        self.told: dict[int, list[str]] = {}
        self.created: list[str] = []

    def create(self, request: Any) -> None:
        self.created.append(" ".join(str(request).split()))
        self._stream.send(MESSAGES["WatchRequest"](create_request=request))

    def cancel(self, watch_id: int) -> None:
        self.created.append(f"cancel {watch_id}")
        request = MESSAGES["WatchRequest"]()
        request.cancel_request.watch_id = watch_id
        self._stream.send(request)

    def read(self, seconds: float) -> None:
        """Take what has come, or what comes in time."""
        try:
            self._take(self._stream.receive(seconds))
            while True:
                self._take(self._stream.receive(0))
        except queue.Empty:
            return

    def read_until(self, done: Callable[[], bool], seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            self.read(0.02)
        return True

    def _take(self, response: Any) -> None:
        told = self.told.setdefault(response.watch_id, [])
        if response.created or response.canceled:
            told.append(
                f"created={response.created} canceled={response.canceled} "
                f"compacted={response.compact_revision} reason={response.cancel_reason!r}"
            )
        told.extend(" ".join(str(event).split()) for event in response.events)

    def close(self) -> None:
        self._stream.close()
