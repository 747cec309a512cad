"""The messages of etcd's v3 API, as a table. Pure.

One line a message: `name=number type`, with `*` behind a type for a repeated field and `|union` for
a member of a union, as etcd's public documentation of the API numbers them. Enumerations stand as
`int32`, which is the same on the wire; their values are constants where they are used. The
protobuf runtime makes classes of the table: `MESSAGES["RangeRequest"](key=b"a")`.

The gRPC health service's two messages are here as well.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = ["MESSAGES"]

PACKAGE: Final = "etcdserverpb"

TABLE: Final = """
KeyValue: key=1 bytes, create_revision=2 int64, mod_revision=3 int64, version=4 int64, \
value=5 bytes, lease=6 int64
Event: type=1 int32, kv=2 KeyValue, prev_kv=3 KeyValue
ResponseHeader: cluster_id=1 uint64, member_id=2 uint64, revision=3 int64, raft_term=4 uint64

RangeRequest: key=1 bytes, range_end=2 bytes, limit=3 int64, revision=4 int64, \
sort_order=5 int32, sort_target=6 int32, serializable=7 bool, keys_only=8 bool, \
count_only=9 bool, min_mod_revision=10 int64, max_mod_revision=11 int64, \
min_create_revision=12 int64, max_create_revision=13 int64
RangeResponse: header=1 ResponseHeader, kvs=2 KeyValue*, more=3 bool, count=4 int64
PutRequest: key=1 bytes, value=2 bytes, lease=3 int64, prev_kv=4 bool, ignore_value=5 bool, \
ignore_lease=6 bool
PutResponse: header=1 ResponseHeader, prev_kv=2 KeyValue
DeleteRangeRequest: key=1 bytes, range_end=2 bytes, prev_kv=3 bool
DeleteRangeResponse: header=1 ResponseHeader, deleted=2 int64, prev_kvs=3 KeyValue*
Compare: result=1 int32, target=2 int32, key=3 bytes, version=4 int64|target_union, \
create_revision=5 int64|target_union, mod_revision=6 int64|target_union, \
value=7 bytes|target_union, lease=8 int64|target_union, range_end=64 bytes
RequestOp: request_range=1 RangeRequest|request, request_put=2 PutRequest|request, \
request_delete_range=3 DeleteRangeRequest|request, request_txn=4 TxnRequest|request
ResponseOp: response_range=1 RangeResponse|response, response_put=2 PutResponse|response, \
response_delete_range=3 DeleteRangeResponse|response, response_txn=4 TxnResponse|response
TxnRequest: compare=1 Compare*, success=2 RequestOp*, failure=3 RequestOp*
TxnResponse: header=1 ResponseHeader, succeeded=2 bool, responses=3 ResponseOp*
CompactionRequest: revision=1 int64, physical=2 bool
CompactionResponse: header=1 ResponseHeader

WatchRequest: create_request=1 WatchCreateRequest|request_union, \
cancel_request=2 WatchCancelRequest|request_union, \
progress_request=3 WatchProgressRequest|request_union
WatchCreateRequest: key=1 bytes, range_end=2 bytes, start_revision=3 int64, \
progress_notify=4 bool, filters=5 int32*, prev_kv=6 bool, watch_id=7 int64, fragment=8 bool
WatchCancelRequest: watch_id=1 int64
WatchProgressRequest:
WatchResponse: header=1 ResponseHeader, watch_id=2 int64, created=3 bool, canceled=4 bool, \
compact_revision=5 int64, cancel_reason=6 string, fragment=7 bool, events=11 Event*

LeaseGrantRequest: TTL=1 int64, ID=2 int64
LeaseGrantResponse: header=1 ResponseHeader, ID=2 int64, TTL=3 int64, error=4 string
LeaseRevokeRequest: ID=1 int64
LeaseRevokeResponse: header=1 ResponseHeader
LeaseKeepAliveRequest: ID=1 int64
LeaseKeepAliveResponse: header=1 ResponseHeader, ID=2 int64, TTL=3 int64
LeaseTimeToLiveRequest: ID=1 int64, keys=2 bool
LeaseTimeToLiveResponse: header=1 ResponseHeader, ID=2 int64, TTL=3 int64, grantedTTL=4 int64, \
keys=5 bytes*
LeaseLeasesRequest:
LeaseStatus: ID=1 int64
LeaseLeasesResponse: header=1 ResponseHeader, leases=2 LeaseStatus*

Member: ID=1 uint64, name=2 string, peerURLs=3 string*, clientURLs=4 string*, isLearner=5 bool
MemberAddRequest: peerURLs=1 string*, isLearner=2 bool
MemberAddResponse: header=1 ResponseHeader, member=2 Member, members=3 Member*
MemberRemoveRequest: ID=1 uint64
MemberRemoveResponse: header=1 ResponseHeader, members=2 Member*
MemberUpdateRequest: ID=1 uint64, peerURLs=2 string*
MemberUpdateResponse: header=1 ResponseHeader, members=2 Member*
MemberListRequest: linearizable=1 bool
MemberListResponse: header=1 ResponseHeader, members=2 Member*
MemberPromoteRequest: ID=1 uint64
MemberPromoteResponse: header=1 ResponseHeader, members=2 Member*

StatusRequest:
DowngradeInfo: enabled=1 bool, targetVersion=2 string
StatusResponse: header=1 ResponseHeader, version=2 string, dbSize=3 int64, leader=4 uint64, \
raftIndex=5 uint64, raftTerm=6 uint64, raftAppliedIndex=7 uint64, errors=8 string*, \
dbSizeInUse=9 int64, isLearner=10 bool, storageVersion=11 string, dbSizeQuota=12 int64, \
downgradeInfo=13 DowngradeInfo
HashRequest:
HashResponse: header=1 ResponseHeader, hash=2 uint32
HashKVRequest: revision=1 int64
HashKVResponse: header=1 ResponseHeader, hash=2 uint32, compact_revision=3 int64, \
hash_revision=4 int64
SnapshotRequest:
SnapshotResponse: header=1 ResponseHeader, remaining_bytes=2 uint64, blob=3 bytes, \
version=4 string
AlarmRequest: action=1 int32, memberID=2 uint64, alarm=3 int32
AlarmMember: memberID=1 uint64, alarm=2 int32
AlarmResponse: header=1 ResponseHeader, alarms=2 AlarmMember*
DefragmentRequest:
DefragmentResponse: header=1 ResponseHeader
MoveLeaderRequest: targetID=1 uint64
MoveLeaderResponse: header=1 ResponseHeader
DowngradeRequest: action=1 int32, version=2 string
DowngradeResponse: header=1 ResponseHeader, version=2 string
AuthStatusRequest:
AuthStatusResponse: header=1 ResponseHeader, enabled=2 bool, authRevision=3 uint64

HealthCheckRequest: service=1 string
HealthCheckResponse: status=1 int32
"""

SCALARS: Final = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}


def _add_field(message: Any, unions: list[str], text: str) -> None:
    """`name=number type` with its marks, as a field of the message."""
    place, kind = text.split()
    name, number = place.split("=")
    kind, _, union = kind.partition("|")
    field = message.field.add(name=name, number=int(number))
    repeated = kind.endswith("*")
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else 1
    kind = kind.rstrip("*")
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    if union:
        if union not in unions:
            unions.append(union)
            message.oneof_decl.add(name=union)
        field.oneof_index = unions.index(union)


def _message(line: str) -> Any:
    name, _, fields = line.partition(":")
    message = DescriptorProto(name=name)
    unions: list[str] = []
    for text in filter(str.strip, fields.split(",")):
        _add_field(message, unions, text)
    return message


def _build() -> dict[str, Any]:
    file = FileDescriptorProto(name="etcd.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(_message(line) for line in TABLE.splitlines() if line)
    pool = DescriptorPool()
    pool.Add(file)
    return {
        message.name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{message.name}"))
        for message in file.message_type
    }


MESSAGES: Final[dict[str, Any]] = _build()
"""The class of each message, by name."""
