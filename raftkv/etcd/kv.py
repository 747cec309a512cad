"""The KV service: ranges, writes, transactions, compaction."""

from __future__ import annotations

from typing import Any, Final

import trio

from raftkv.errors import Compacted, RequestTooLarge
from raftkv.etcd import translate
from raftkv.etcd.connection import Call
from raftkv.etcd.member import Member
from raftkv.etcd.rpc import Method
from raftkv.etcd.schema import MESSAGES
from raftkv.wire.protocol import MAX_REQUEST_BYTES

__all__ = ["kv_methods"]

CompactionResponse: Final = MESSAGES["CompactionResponse"]


def kv_methods(member: Member) -> dict[str, Method]:
    service = Kv(member)
    handlers = {
        "Range": service.range,
        "Put": service.put,
        "DeleteRange": service.delete_range,
        "Txn": service.txn,
        "Compact": service.compact,
    }
    requests = {"Compact": "CompactionRequest"}
    return {
        f"/etcdserverpb.KV/{name}": Method(
            MESSAGES[requests.get(name, f"{name}Request")], member.led(handler)
        )
        for name, handler in handlers.items()
    }


class Parts:
    """A large response, made in parts so that the member goes on meanwhile: the bytes of a message
    are those of its parts, one after the other."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def SerializeToString(self) -> bytes:  # as protobuf's messages
        return b"".join(self.parts)


class Kv:
    def __init__(self, member: Member) -> None:
        self._member = member

    async def range(self, call: Call, request: Any) -> Any:
        operation = translate.range_operation(request)
        result = await self._member.range(operation, request.serializable)
        response = Parts()
        for part in translate.range_parts(request, result, self._member.header(result[3])):
            if response.parts:
                await trio.lowlevel.checkpoint()
            response.parts.append(part.SerializeToString())
        return response

    async def put(self, call: Call, request: Any) -> Any:
        command = translate.put_command(request)
        _check_size(request)
        result = await self._member.write(*command)
        return translate.put_response(result, self._member.header(result[0]))

    async def delete_range(self, call: Call, request: Any) -> Any:
        result = await self._member.write(*translate.delete_command(request))
        return translate.delete_response(result, self._member.header(result[0]))

    async def txn(self, call: Call, request: Any) -> Any:
        command = translate.txn_command(request)
        _check_size(request)
        if translate.writes(command):
            result = await self._member.write(*command)
        else:
            result = await self._member.read(*command)
            await self._member.applied(result[0])
        return translate.txn_response(request, result, self._member.header(result[0]))

    async def compact(self, call: Call, request: Any) -> Any:
        """`physical` needs no wait: what compaction has freed so far shows nowhere."""
        if request.revision < 0:
            raise Compacted
        (revision,) = await self._member.write("compact", request.revision)
        await self._member.applied(revision, request.revision)
        return CompactionResponse(header=self._member.header(revision))


def _check_size(request: Any) -> None:
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise RequestTooLarge
