"""Single requests at the edge of what is allowed: etcd's answers are ours, but a few on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from raftkv.etcd.schema import MESSAGES as M
from tests.etcd.client import EtcdClient
from tests.etcd.processes import etcd, raftkv
from tests.etcd.programs import Request, answer_of

pytestmark = [pytest.mark.tool("etcd"), pytest.mark.slow]

KIB = 1024


def put(key: bytes) -> Any:
    return M["RequestOp"](request_put=M["PutRequest"](key=key))


def txn(**fields: Any) -> Any:
    return M["TxnRequest"](**fields)


EQUAL: tuple[tuple[str, str, Any], ...] = (
    ("KV", "Range", M["RangeRequest"]()),
    ("KV", "Range", M["RangeRequest"](key=b"a", limit=-1, revision=-5)),
    ("KV", "Range", M["RangeRequest"](key=b"b", range_end=b"a")),
    ("KV", "Range", M["RangeRequest"](key=b"\0", range_end=b"\0", serializable=True)),
    ("KV", "Put", M["PutRequest"]()),
    ("KV", "Put", M["PutRequest"](key=b"k", lease=-3)),
    ("KV", "Put", M["PutRequest"](key=b"k", value=b"x", ignore_value=True)),
    ("KV", "Put", M["PutRequest"](key=b"k", lease=5, ignore_lease=True)),
    ("KV", "Put", M["PutRequest"](key=b"k", lease=5, ignore_value=True)),
    ("KV", "DeleteRange", M["DeleteRangeRequest"]()),
    ("KV", "Txn", txn()),
    ("KV", "Txn", txn(success=[put(b"%d" % number) for number in range(129)])),
    ("KV", "Txn", txn(success=[put(b"%d" % number) for number in range(128)])),
    ("KV", "Txn", txn(compare=[M["Compare"]()])),
    ("KV", "Txn", txn(compare=[M["Compare"](key=b"q", target=3)])),
    ("KV", "Txn", txn(compare=[M["Compare"](key=b"q", target=3, version=1)])),
    ("KV", "Txn", txn(success=[M["RequestOp"]()])),
    ("KV", "Compact", M["CompactionRequest"](revision=-1)),
    ("KV", "Compact", M["CompactionRequest"](revision=2, physical=True)),
    ("KV", "Compact", M["CompactionRequest"](revision=2)),
    ("KV", "Compact", M["CompactionRequest"](revision=0)),
    ("KV", "Compact", M["CompactionRequest"](revision=200)),
    ("Lease", "LeaseGrant", M["LeaseGrantRequest"](ID=5, TTL=1)),
    ("Lease", "LeaseGrant", M["LeaseGrantRequest"](ID=5, TTL=1)),
    ("Lease", "LeaseRevoke", M["LeaseRevokeRequest"](ID=5)),
    ("Lease", "LeaseGrant", M["LeaseGrantRequest"](ID=6, TTL=-10)),
    ("Lease", "LeaseRevoke", M["LeaseRevokeRequest"](ID=6)),
    ("Lease", "LeaseGrant", M["LeaseGrantRequest"](ID=8, TTL=9_000_000_000)),
    ("Lease", "LeaseRevoke", M["LeaseRevokeRequest"](ID=8)),
    ("Lease", "LeaseGrant", M["LeaseGrantRequest"](ID=8, TTL=9_000_000_001)),
    ("Lease", "LeaseRevoke", M["LeaseRevokeRequest"](ID=-8)),
    ("Lease", "LeaseRevoke", M["LeaseRevokeRequest"]()),
    ("Lease", "LeaseTimeToLive", M["LeaseTimeToLiveRequest"]()),
    ("Lease", "LeaseTimeToLive", M["LeaseTimeToLiveRequest"](ID=-4, keys=True)),
    ("Lease", "LeaseLeases", M["LeaseLeasesRequest"]()),
    ("Cluster", "MemberAdd", M["MemberAddRequest"]()),
    ("Cluster", "MemberAdd", M["MemberAddRequest"](peerURLs=["nonsense"])),
    ("Cluster", "MemberAdd", M["MemberAddRequest"](peerURLs=["http://["])),
    ("Cluster", "MemberAdd", M["MemberAddRequest"](peerURLs=["http://127.0.0.1"])),
    ("Cluster", "MemberRemove", M["MemberRemoveRequest"](ID=77)),
    ("Cluster", "MemberPromote", M["MemberPromoteRequest"](ID=77)),
    ("Maintenance", "MoveLeader", M["MoveLeaderRequest"](targetID=77)),
    ("Maintenance", "HashKV", M["HashKVRequest"](revision=1)),
    ("Maintenance", "HashKV", M["HashKVRequest"](revision=100)),
    ("Maintenance", "Alarm", M["AlarmRequest"]()),
    ("Maintenance", "Alarm", M["AlarmRequest"](action=2, alarm=1)),
    ("Maintenance", "Defragment", M["DefragmentRequest"]()),
    ("KV", "Put", M["PutRequest"](key=b"k", value=bytes(1500 * KIB))),
    ("KV", "Put", M["PutRequest"](key=b"k", value=bytes(1600 * KIB))),
    ("KV", "Put", M["PutRequest"](key=b"k", value=bytes(2100 * KIB))),
)
"""In this order."""

OTHERWISE: tuple[tuple[str, str, Any, tuple[str, str]], ...] = (
    # What no client means is refused; etcd takes it for a comparison that holds.
    (
        "KV",
        "Txn",
        txn(compare=[M["Compare"](key=b"q", target=9)]),
        ("INVALID_ARGUMENT", "etcdserver: unknown target or result of a comparison"),
    ),
    # etcd compacts to revision 0, once.
    (
        "KV",
        "Compact",
        M["CompactionRequest"](),
        ("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted"),
    ),
    # etcd grants it.
    (
        "Lease",
        "LeaseGrant",
        M["LeaseGrantRequest"](ID=-7, TTL=100),
        ("INVALID_ARGUMENT", "a lease id is an integer from 1 on, not -7"),
    ),
    # etcd overlooks that this range holds the key.
    (
        "KV",
        "Txn",
        txn(
            success=[
                put(b"k"),
                M["RequestOp"](
                    request_delete_range=M["DeleteRangeRequest"](key=b"a", range_end=b"\0")
                ),
            ]
        ),
        ("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request"),
    ),
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdClient]:
    with raftkv(tmp_path_factory.mktemp("ours")) as addresses, EtcdClient(addresses[0]) as client:
        yield client


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdClient]:
    with etcd(tmp_path_factory.mktemp("etcd")) as address, EtcdClient(address) as client:
        yield client


@pytest.mark.parametrize(("service", "name", "message", "expected"), OTHERWISE)
def test_on_purpose(
    ours: EtcdClient, service: str, name: str, message: Any, expected: tuple[str, str]
) -> None:
    assert answer_of(ours, Request(service, name, message)) == expected


def test_equal(ours: EtcdClient, reference: EtcdClient) -> None:
    for case in EQUAL:
        request = Request(*case)
        expected, found = answer_of(reference, request), answer_of(ours, request)
        assert found == expected, f"{request.name} {str(request.message)[:300]}"


def test_renewals_are_equal(ours: EtcdClient, reference: EtcdClient) -> None:
    told = []
    for client in (ours, reference):
        granted = client.call("Lease/LeaseGrant", ID=12, TTL=1000)
        stream = client.stream("Lease", "LeaseKeepAlive", "LeaseKeepAliveResponse")
        renewals = []
        for lease in (12, -5, 0, 99):
            stream.send(M["LeaseKeepAliveRequest"](ID=lease))
            renewal = stream.receive()
            assert renewal.header.revision == granted.header.revision
            renewals.append((renewal.ID, renewal.TTL))
        stream.close()
        told.append(renewals)
    assert told[0] == told[1] == [(12, 1000), (-5, 0), (0, 0), (99, 0)]
