"""The Lease service."""

from __future__ import annotations

import math
from typing import Any, Final

from raftkv.errors import LeaseNotFound
from raftkv.etcd.connection import Call
from raftkv.etcd.member import Member
from raftkv.etcd.rpc import Handler, Method
from raftkv.etcd.schema import MESSAGES

__all__ = ["lease_methods"]

MIN_TTL_ELECTIONS: Final = 1.5
"""etcd's: a lease outlives the election of a leader who may renew it."""
LeaseGrantResponse: Final = MESSAGES["LeaseGrantResponse"]
LeaseRevokeResponse: Final = MESSAGES["LeaseRevokeResponse"]
LeaseKeepAliveResponse: Final = MESSAGES["LeaseKeepAliveResponse"]
LeaseTimeToLiveResponse: Final = MESSAGES["LeaseTimeToLiveResponse"]
LeaseLeasesResponse: Final = MESSAGES["LeaseLeasesResponse"]
LeaseStatus: Final = MESSAGES["LeaseStatus"]


def lease_methods(member: Member) -> dict[str, Method]:
    service = Leases(member)
    handlers: dict[str, Handler] = {
        "LeaseGrant": service.grant,
        "LeaseRevoke": service.revoke,
        "LeaseTimeToLive": service.time_to_live,
        "LeaseLeases": service.leases,
        "LeaseKeepAlive": service.keep_alive,
    }
    return {
        f"/etcdserverpb.Lease/{name}": Method(
            MESSAGES[f"{name}Request"], member.led(handler), streams=name == "LeaseKeepAlive"
        )
        for name, handler in handlers.items()
    }


class Leases:
    def __init__(self, member: Member) -> None:
        self._member = member
        self._ttl_min = math.ceil(MIN_TTL_ELECTIONS * member.election_seconds)

    async def grant(self, call: Call, request: Any) -> Any:
        """A TTL below the least one is raised to it; the response tells."""
        member = self._member
        ttl = max(request.TTL, self._ttl_min)
        # Chosen here, so that a request of unknown outcome is not another one with a new id.
        lease_id = request.ID or member.rng.getrandbits(62) | 1
        revision, granted, ttl = await member.write("lease_grant", lease_id, ttl)
        return LeaseGrantResponse(header=member.header(revision), ID=granted, TTL=ttl)

    async def revoke(self, call: Call, request: Any) -> Any:
        if request.ID <= 0:
            raise LeaseNotFound
        (revision,) = await self._member.write("lease_revoke", request.ID)
        return LeaseRevokeResponse(header=self._member.header(revision))

    async def time_to_live(self, call: Call, request: Any) -> Any:
        member = self._member
        if request.ID <= 0:
            (revision,) = await member.read("revision")
            left, granted, keys = -1, 0, []
        else:
            revision, left, granted, keys = await member.read(
                "lease_time_to_live", request.ID, request.keys
            )
        return LeaseTimeToLiveResponse(
            header=member.header(revision), ID=request.ID, TTL=left, grantedTTL=granted, keys=keys
        )

    async def leases(self, call: Call, request: Any) -> Any:
        revision, ids = await self._member.read("leases")
        return LeaseLeasesResponse(
            header=self._member.header(revision), leases=[LeaseStatus(ID=each) for each in ids]
        )

    async def keep_alive(self, call: Call) -> None:
        """One renewal after the other; a lease that is gone is answered with a TTL of 0."""
        member = self._member
        while (request := await call.receive()) is not None:
            revision, ttl = member.local.revision, 0
            if request.ID > 0:
                try:
                    revision, ttl = await member.read("lease_keep_alive", request.ID)
                except LeaseNotFound:
                    ttl = 0
            header = member.header(revision)
            await call.send(LeaseKeepAliveResponse(header=header, ID=request.ID, TTL=ttl))
