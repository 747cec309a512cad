"""The Maintenance service: status, checksums, backups, alarms, and who leads.

What etcd needs maintained here maintains itself: space that compaction frees is used again, so
`Defragment` has nothing to do; the one alarm, NOSPACE, is on as long as the store is above its
quota, and can't be switched.

A `Snapshot` has the format of etcd's own (`raftkv.storage.etcd_backup`): etcd restores it, and
`raftkv snapshot restore` does.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import trio

from raftkv.errors import FutureRevision, InvalidRequest, NotLeader, Unavailable
from raftkv.etcd.connection import Call
from raftkv.etcd.member import Member
from raftkv.etcd.outcomes import bad_leader_transferee
from raftkv.etcd.rpc import Handler, Method, RpcError, Status
from raftkv.etcd.schema import MESSAGES
from raftkv.wire.protocol import error_of, is_error

__all__ = ["maintenance_methods"]

NOSPACE: Final = 1
GET: Final = 0
ACTIVATE: Final = 1
EXIT_SECONDS: Final = 5.0
EXPORTER: Final = (sys.executable, "-m", "raftkv.cli", "snapshot", "export", "-", "-")

StatusResponse: Final = MESSAGES["StatusResponse"]
HashResponse: Final = MESSAGES["HashResponse"]
HashKVResponse: Final = MESSAGES["HashKVResponse"]
SnapshotResponse: Final = MESSAGES["SnapshotResponse"]
AlarmMember: Final = MESSAGES["AlarmMember"]
AlarmResponse: Final = MESSAGES["AlarmResponse"]
DefragmentResponse: Final = MESSAGES["DefragmentResponse"]
MoveLeaderResponse: Final = MESSAGES["MoveLeaderResponse"]
AuthStatusResponse: Final = MESSAGES["AuthStatusResponse"]


def maintenance_methods(member: Member) -> dict[str, Method]:
    service = Maintenance(member)
    handlers: dict[str, Handler] = {
        "Status": service.status,
        "Hash": service.hash,
        "HashKV": service.hash_kv,
        "Snapshot": service.snapshot,
        "Alarm": service.alarm,
        "Defragment": service.defragment,
        "MoveLeader": service.move_leader,
        "Downgrade": service.downgrade,
    }
    methods = {
        f"/etcdserverpb.Maintenance/{name}": Method(
            MESSAGES[f"{name}Request"], handler, streams=name == "Snapshot"
        )
        for name, handler in handlers.items()
    }
    auth_status = Method(MESSAGES["AuthStatusRequest"], service.auth_status)
    return {**methods, "/etcdserverpb.Auth/AuthStatus": auth_status}


class Maintenance:
    """All of it is this very member's, whoever leads."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def status(self, call: Call, request: Any) -> Any:
        member = self._member
        status = await member.status()
        errors = []
        if not status["leader"]:
            errors.append("etcdserver: no leader")
        if _is_full(status):
            errors.append(f"memberID:{status['id']} alarm:NOSPACE ")
        return StatusResponse(
            header=member.header(status["revision"]),
            version=status["version"],
            dbSize=status["db_size"],
            dbSizeInUse=status["db_size"],
            dbSizeQuota=status["quota"],
            leader=status["leader"],
            raftIndex=status["raft_commit"],
            raftTerm=status["term"],
            raftAppliedIndex=status["raft_applied"],
            errors=errors,
            isLearner=status["id"] in status["learners"],
            storageVersion=status["version"],
        )

    async def hash(self, call: Call, request: Any) -> Any:
        revision, _, checksum = await self._hash(0)
        return HashResponse(header=self._member.header(revision), hash=checksum)

    async def hash_kv(self, call: Call, request: Any) -> Any:
        if request.revision < 0:
            raise FutureRevision
        revision, compacted, checksum = await self._hash(request.revision)
        return HashKVResponse(
            header=self._member.header(self._member.local.revision),
            hash=checksum,
            compact_revision=compacted,
            hash_revision=revision,
        )

    async def _hash(self, revision: int) -> list[int]:
        found: list[int] = await self._member.read("hash", revision, near=True)
        return found

    async def snapshot(self, call: Call) -> None:
        """A snapshot that etcd restores. It is made of a backup by another process, so that neither
        the time nor the memory for it are the member's."""
        async with self._member.connection() as connection, _exporter() as exporter:
            (revision,) = _result(await connection.call("snapshot_open"))
            while True:
                (piece,) = _result(await connection.call("snapshot_read"))
                if not piece:
                    break
                await exporter.send_all(piece)
            await exporter.send_stream.aclose()
            header = self._member.header(revision)
            async for blob in exporter.receive_stream:
                await call.send(SnapshotResponse(header=header, blob=blob))

    async def alarm(self, call: Call, request: Any) -> Any:
        if request.action == ACTIVATE:
            raise RpcError(
                Status.UNIMPLEMENTED,
                "etcdserver: alarms can't be set: NOSPACE is on while the store is above its quota",
            )
        member, alarms = self._member, []
        status = await member.status()
        if request.action == GET and request.alarm in (0, NOSPACE) and _is_full(status):
            alarms.append(AlarmMember(memberID=status["id"], alarm=NOSPACE))
        return AlarmResponse(header=member.header(), alarms=alarms)

    async def defragment(self, call: Call, request: Any) -> Any:
        return DefragmentResponse(header=self._member.header())

    async def move_leader(self, call: Call, request: Any) -> Any:
        """To be asked of the leader. Answered when the other one leads."""
        member = self._member
        if member.local.leader != member.local.id:
            raise NotLeader
        status = await member.status()
        if request.targetID not in status["members"]:
            raise bad_leader_transferee()
        if request.targetID != member.local.id:
            async with self._member.connection() as connection:
                result = await connection.call("move_leader", request.targetID)
            if is_error(result):
                error = error_of(result)
                raise bad_leader_transferee() if isinstance(error, InvalidRequest) else error
            await member.wait_leader(request.targetID)
        return MoveLeaderResponse(header=member.header())

    async def downgrade(self, call: Call, request: Any) -> Any:
        raise RpcError(Status.UNIMPLEMENTED, "etcdserver: there is no older version to go down to")

    async def auth_status(self, call: Call, request: Any) -> Any:
        """Users and roles don't exist here; clients are known by their certificates."""
        return AuthStatusResponse(header=self._member.header(), enabled=False)


@contextlib.asynccontextmanager
async def _exporter() -> AsyncIterator[trio.StapledStream[Any, Any]]:
    """A process that takes a backup and, once that has ended, gives etcd's snapshot of it.

    Raises Unavailable where there is none.
    """
    try:
        process = await trio.lowlevel.open_process(
            EXPORTER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    except OSError as error:  # out of processes, descriptors or memory
        raise Unavailable(f"{Unavailable.text}: {error}") from error
    assert process.stdio is not None
    try:
        async with process.stdio:
            yield process.stdio
            with trio.move_on_after(EXIT_SECONDS):
                await process.wait()
        if process.returncode != 0:
            raise Unavailable(f"{Unavailable.text}: the snapshot could not be made")
    except trio.BrokenResourceError as error:
        raise Unavailable(f"{Unavailable.text}: the snapshot could not be made") from error
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def _is_full(status: dict[str, Any]) -> bool:
    full: bool = status["db_size"] > status["quota"]
    return full


def _result(result: Any) -> Any:
    if is_error(result):
        raise error_of(result)
    return result
