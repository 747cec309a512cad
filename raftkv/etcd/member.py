"""The member behind the front: its own requests, sent where they can be served.

The front is a client of the store like any other. What this member answers by itself goes over a
pair of sockets within the process; what needs the leader goes to the leader, wherever that is, as
`raftkv.client` does it, under the same rule: nothing is sent twice that might have taken place.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Final, Protocol, TypeVar

import trio

from raftkv.client import KvClient
from raftkv.client.connection import Connection, ConnectionLost
from raftkv.errors import Unavailable
from raftkv.etcd.outcomes import no_leader, timed_out
from raftkv.etcd.rpc import Handler
from raftkv.etcd.schema import MESSAGES
from raftkv.host import Address, Listener, Net, Tls
from raftkv.streams import GONE, only_error, secured
from raftkv.wire.framing import encode
from raftkv.wire.protocol import COUNT_ONLY, KEYS_ONLY, SERIALIZABLE, VERSION

__all__ = ["LOCAL", "LocalMember", "Member", "MemberNet"]

LOCAL: Final = Address("this member", 0)
REQUEST_SECONDS: Final = 5.0
"""How long a request may take beside two elections; etcd's own."""
POLL_SECONDS: Final = 0.02
APPLY_SECONDS: Final = 0.001
"""Between two looks whether a follower has applied; the leader tells it about as soon."""
Header: Final = MESSAGES["ResponseHeader"]
T = TypeVar("T")


class LocalMember(Protocol):
    """What the front needs of a running member beside its protocol (`raftkv.server.Server`)."""

    @property
    def id(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def leader(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def compact_revision(self) -> int: ...
    @property
    def advertised_address(self) -> Address: ...
    def open_local(self) -> trio.abc.Stream: ...


class MemberNet:
    """The client's way to the members: this one without leaving the process."""

    def __init__(self, local: LocalMember, net: Net, tls: Tls | None) -> None:
        self._local = local
        self._net = net
        self._tls = tls

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        if address in (LOCAL, self._local.advertised_address):
            return self._local.open_local()
        context = self._tls.client if self._tls else None
        return secured(await self._net.open_stream(address), context, address.host)

    async def listen(self, address: Address) -> Listener:
        return await self._net.listen(address)


class Member:
    """What handlers ask. Raises KvError, and RpcError where the time is over."""

    def __init__(
        self,
        local: LocalMember,
        client: KvClient,
        net: MemberNet,
        rng: random.Random,
        cluster: str,
        election_seconds: float,
    ) -> None:
        self.local = local
        self.client = client
        self.rng = rng
        self.election_seconds = election_seconds
        self._net = net
        self._seconds = REQUEST_SECONDS + 2 * election_seconds
        digest = hashlib.sha256(cluster.encode()).digest()
        self._cluster_id = int.from_bytes(digest[:8], "big")

    def header(self, revision: int = 0) -> Any:
        """0: a response that has nothing to do with revisions."""
        return Header(
            cluster_id=self._cluster_id,
            member_id=self.local.id,
            revision=revision,
            raft_term=self.local.term,
        )

    def led(self, handler: Handler) -> Handler:
        """The handler, refusing those who want no answer of a member without a leader."""

        async def checked(call: Any, *request: Any) -> Any:
            if call.require_leader and not self.local.leader:
                raise no_leader()
            return await handler(call, *request)

        return checked

    # --- requests -------------------------------------------------------------------------------

    async def read(self, *request: Any, near: bool = False) -> Any:
        return await self.in_time(self.client.read(request, near=near))

    async def write(self, *request: Any) -> Any:
        """Answered once this member has applied it as well."""
        result = await self.in_time(self.client.write(request))
        await self.applied(result[0])
        return result

    async def applied(self, revision: int, compacted: int = 0) -> None:
        """Wait until this member is as far as the leader's answer: what its client asks of it next
        (a watch from now on, a serializable range) must not be of an older state. etcd's members
        answer when they have applied a request themselves."""
        local = self.local
        if local.revision < revision or local.compact_revision < compacted:
            with trio.move_on_after(self.election_seconds):
                while local.revision < revision or local.compact_revision < compacted:
                    await trio.sleep(APPLY_SECONDS)

    async def in_time(self, asked: Awaitable[T]) -> T:
        with trio.move_on_after(self._seconds):
            return await asked
        raise timed_out()

    async def range(self, operation: Sequence[Any], serializable: bool) -> list[Any]:
        """`[kvs, count, more, revision]` of a range operation, with all its pages."""
        _, key, end, limit, revision, keys_only, count_only = operation
        options = (
            (KEYS_ONLY if keys_only else 0)
            | (COUNT_ONLY if count_only else 0)
            | (SERIALIZABLE if serializable else 0)
        )
        request = ("range", key, end, limit, revision, options)
        kvs, count, more, at = await self.read(*request, near=serializable)
        while more and len(kvs) != limit:
            start, left = kvs[-1][0] + b"\0", limit and limit - len(kvs)
            request = ("range", start, end, left, revision or at, options)
            page, _, more, _ = await self.read(*request, near=serializable)
            kvs += page
        if not serializable:
            await self.applied(at)
        return [kvs, count, more, at]

    async def status(self) -> dict[str, Any]:
        """This member's own."""
        (status,) = await self.read("status", near=True)
        found: dict[str, Any] = status
        return found

    async def wait_leader(self, leader: int) -> None:
        """Raises RpcError where leadership doesn't arrive there in time."""
        with trio.move_on_after(self._seconds):
            while self.local.leader != leader:
                await trio.sleep(POLL_SECONDS)
            return
        raise timed_out()

    # --- connections ----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of one's own to this member. Raises Unavailable where there is none."""
        try:
            connection = await Connection.connect(self._net, LOCAL, None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.run)
                yield connection
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = only_error(group)
            if isinstance(error, ConnectionLost):
                raise Unavailable(f"{Unavailable.text}: {error}") from error
            raise error from None
        except OSError as error:  # out of file descriptors
            raise Unavailable(f"{Unavailable.text}: {error}") from error

    async def open_stream(self) -> trio.abc.Stream:
        """The same, as the bytes that the protocol is."""
        try:
            stream = await self._net.open_stream(LOCAL)
            await stream.send_all(encode([[1, "hello", VERSION]]))
        except GONE as error:
            raise Unavailable(f"{Unavailable.text}: {error}") from error
        return stream
