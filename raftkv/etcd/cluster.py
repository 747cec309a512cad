"""The Cluster service: who the members are, and changes of that.

A member's address for etcd's clients is part of what it tells of itself (`status`), so the front
asks each for it once it is needed, and remembers the answer for when that one is away.

etcd chooses the id of a member that is added; here a member's id is the number at the end of its
name. So the next free number is taken, and the new member is started under a name that ends with
it: after `member add` has printed 4, `raftkv serve --name m4 --join ...`.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import urlsplit

import trio

from raftkv.client.connection import ConnectionLost
from raftkv.errors import MemberExists, MemberNotFound
from raftkv.etcd.connection import Call
from raftkv.etcd.member import Member
from raftkv.etcd.outcomes import bad_urls, not_learner, peer_url_exists
from raftkv.etcd.rpc import Method, RpcError, Status
from raftkv.etcd.schema import MESSAGES
from raftkv.host import parse_address

__all__ = ["cluster_methods"]

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 0.5
IDS_TRIED: Final = 64
MemberMessage: Final = MESSAGES["Member"]
RESPONSES: Final = {
    name: MESSAGES[f"Member{name}Response"] for name in ("List", "Add", "Remove", "Promote")
}


def cluster_methods(member: Member, secure: bool, peers_secure: bool) -> dict[str, Method]:
    """`secure`, `peers_secure`: whether clients and peers are served with TLS."""
    service = Cluster(member, "https" if secure else "http", "https" if peers_secure else "http")
    handlers = {
        "MemberList": service.members,
        "MemberAdd": service.add,
        "MemberRemove": service.remove,
        "MemberPromote": service.promote,
        "MemberUpdate": service.update,
    }
    return {
        f"/etcdserverpb.Cluster/{name}": Method(MESSAGES[f"{name}Request"], member.led(handler))
        for name, handler in handlers.items()
    }


class Cluster:
    def __init__(self, member: Member, scheme: str, peer_scheme: str) -> None:
        self._member = member
        self._scheme = scheme
        self._peer_scheme = peer_scheme
        self._known: dict[str, str] = {}  # a member's client address -> its address for etcd's API

    async def members(self, call: Call, request: Any) -> Any:
        rows = await self._member.read(
            "members", request.linearizable, near=not request.linearizable
        )
        return await self._response("List", rows)

    async def add(self, call: Call, request: Any) -> Any:
        address = _peer_address(list(request.peerURLs))
        rows = await self._rows()
        if any(row[2] == address for row in rows):
            raise peer_url_exists()
        first = max(row[0] for row in rows) + 1
        for id_ in range(first, first + IDS_TRIED):
            try:
                await self._member.write("member_add", id_, "", address, not request.isLearner)
            except MemberExists:
                continue  # a number that was used before
            rows = await self._rows()
            response = await self._response("Add", rows)
            response.member.CopyFrom(next(each for each in response.members if id_ == each.ID))
            return response
        raise MemberExists

    async def remove(self, call: Call, request: Any) -> Any:
        await self._find(request.ID)
        await self._member.write("member_remove", request.ID)
        return await self._response("Remove", await self._rows())

    async def promote(self, call: Call, request: Any) -> Any:
        row = await self._find(request.ID)
        if not row[5]:
            raise not_learner()
        await self._member.write("member_promote", request.ID)
        return await self._response("Promote", await self._rows())

    async def update(self, call: Call, request: Any) -> Any:
        raise RpcError(
            Status.UNIMPLEMENTED,
            "etcdserver: a member tells its peer address itself: start it again with "
            "--peer-advertise",
        )

    # --- what is known of members ---------------------------------------------------------------

    async def _rows(self) -> list[Any]:
        """`[id, name, peer address, client address, leads, learns]` of each."""
        rows: list[Any] = await self._member.read("members", True)
        return rows

    async def _find(self, id_: int) -> list[Any]:
        for row in await self._rows():
            if row[0] == id_:
                found: list[Any] = row
                return found
        raise MemberNotFound

    async def _response(self, kind: str, rows: list[Any]) -> Any:
        async with trio.open_nursery() as nursery:
            for row in rows:
                if row[3] and (row[3] not in self._known or row[0] == self._member.local.id):
                    nursery.start_soon(self._ask, row[3])
        members = [
            MemberMessage(
                ID=id_,
                name=name,
                peerURLs=[f"{self._peer_scheme}://{peer_address}"] if peer_address else [],
                clientURLs=self._client_urls(client_address),
                isLearner=learns,
            )
            for id_, name, peer_address, client_address, _, learns in rows
        ]
        return RESPONSES[kind](header=self._member.header(), members=members)

    def _client_urls(self, client_address: str) -> list[str]:
        known = self._known.get(client_address)
        return [f"{self._scheme}://{known}"] if known else []

    async def _ask(self, client_address: str) -> None:
        """A member of which the address for etcd's API isn't known yet."""
        with trio.move_on_after(ASK_SECONDS):
            try:
                status = await self._member.client.status(parse_address(client_address))
            except (OSError, ValueError, ConnectionLost, trio.BrokenResourceError) as error:
                log.debug("member at %s did not tell its addresses: %s", client_address, error)
                return
            self._known[client_address] = status.get("etcd_address", "")


def _peer_address(urls: list[str]) -> str:
    """`http://HOST:PORT` as `HOST:PORT`; a member has one. Raises RpcError."""
    if len(urls) != 1:
        raise bad_urls()
    try:
        parts = urlsplit(urls[0])
        if parts.scheme in ("http", "https") and parts.path in ("", "/"):
            return str(parse_address(parts.netloc))
    except ValueError:
        pass
    raise bad_urls()
