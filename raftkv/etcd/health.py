"""The health service of gRPC: a member is well while it knows a leader."""

from __future__ import annotations

from typing import Any, Final

import trio

from raftkv.etcd.connection import Call
from raftkv.etcd.member import Member
from raftkv.etcd.rpc import Method, RpcError, Status
from raftkv.etcd.schema import MESSAGES

__all__ = ["health_methods"]

SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3
LOOK_SECONDS: Final = 0.25
HealthCheckResponse: Final = MESSAGES["HealthCheckResponse"]


def health_methods(member: Member, services: frozenset[str]) -> dict[str, Method]:
    """`services`: the names that may be asked for; the empty one is the member as a whole."""
    request = MESSAGES["HealthCheckRequest"]

    def state(service: str) -> int:
        if service and service not in services:
            return SERVICE_UNKNOWN
        return SERVING if member.local.leader else NOT_SERVING

    async def check(call: Call, request: Any) -> Any:
        found = state(request.service)
        if found == SERVICE_UNKNOWN:
            raise RpcError(Status.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=found)

    async def watch(call: Call) -> None:
        """The state now, and again whenever it is another."""
        asked = await call.receive()
        told = 0
        while asked is not None:
            found = state(asked.service)
            if found != told:
                told = found
                await call.send(HealthCheckResponse(status=found))
            await trio.sleep(LOOK_SECONDS)

    return {
        "/grpc.health.v1.Health/Check": Method(request, check),
        "/grpc.health.v1.Health/Watch": Method(request, watch, streams=True),
    }
