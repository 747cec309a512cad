"""The streams between members: one out to each peer, one in from each, snapshots on their own.

Owns: outgoing messages until they're sent or dropped. Assumes `PeerHost.receive` takes what comes
in. Never does: retry a message; Raft does that itself.

An outgoing stream is opened again with jittered back-off whenever it breaks, and also when the
peer was silent for long although we talk to it: after a partition TCP may wait minutes before it
tries again, a new connection does not.

When full: an outbox holds at most `OUTBOX_MAX` messages, then (and while there's no connection)
messages are dropped and counted; the core hears `report_unreachable`. A full inbox stops reading.

Identity: the first message on a stream names cluster, sender, receiver and the sender's
incarnation, a number drawn when its log was made. A member that comes with a known id but with
another incarnation has lost its log, and with it promises it made: it is refused, see
`incarnations`.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import trio

from raftkv.errors import WrongCluster
from raftkv.host import Address, Host, Listener, Tls, parse_address
from raftkv.raft.errors import MessageError
from raftkv.raft.messages import (
    InstallSnapshot,
    Message,
    Snapshot,
    from_wire,
    to_wire,
)
from raftkv.server.incarnations import Incarnations
from raftkv.streams import GONE, Outbox, receive, secured
from raftkv.wire.framing import FrameReader, ProtocolError, encode, flatten, frame_head
from raftkv.wire.protocol import MAX_FRAME_FROM_MEMBER, VERSION

__all__ = ["PeerHost", "Peers", "Self"]

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024  # of more, each read would ask the kernel for memory and give it back
SNAPSHOT_CHUNK_BYTES = 256 * 1024
OUTBOX_MAX = 4_096
BACKOFF_MIN_SECONDS = 0.02
BACKOFF_MAX_SECONDS = 1.0
CONNECT_SECONDS = 5.0
SNAPSHOT_SECONDS = 300.0
GUESTS_MAX = 16


class PeerHost(Protocol):
    """What the streams need of the replica; synchronous but for what may take a while."""

    def receive(self, messages: list[Message]) -> None: ...
    async def wait_room(self) -> None: ...
    def unreachable(self, peer: int) -> None: ...
    def gone(self, peer: int) -> None: ...
    def snapshot_sent(self, peer: int, ok: bool) -> None: ...
    async def newest_snapshot(self) -> Snapshot | None: ...
    def is_removed(self, member: int) -> bool: ...


@attrs.frozen(kw_only=True)
class Self:
    """How this member introduces itself."""

    cluster: str
    id: int
    name: str
    incarnation: int
    lineage: Callable[[], int]
    client_address: Callable[[], Address]
    peer_address: Callable[[], Address]

    def hello(self, to: int, purpose: str) -> list[Any]:
        head = ["peer", VERSION, self.cluster, self.lineage(), self.id, to, self.incarnation]
        return [*head, purpose, str(self.client_address()), str(self.peer_address()), self.name]


@attrs.define(eq=False)
class Peer:
    """What is known of one other member, and the way to it."""

    id: int
    address: Address
    guest: bool = False  # not in the membership as far as we know
    name: str = ""
    client_address: Address | None = None
    told_address: str = ""  # where it says that its peers reach it
    incarnation: int = 0  # 0: it did not introduce itself yet
    outbox: Outbox = attrs.field(factory=lambda: Outbox(manual=True))
    connected: bool = False
    connected_at: float = 0.0
    heard_at: float = 0.0
    spoke_at: float = 0.0
    unanswered_since: float | None = None  # when we spoke first after we last heard something
    dropped: int = 0
    life: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    sending: trio.CancelScope | None = None
    receiving: trio.CancelScope | None = None
    snapshot_under_way: bool = False


class Peers:
    """All other members. `run` and `serve` are the tasks; `send` is what the replica calls."""

    def __init__(
        self,
        me: Self,
        host: Host,
        tls: Tls | None,
        incarnations: Incarnations,
        owner: PeerHost,
        silence_seconds: float,
    ) -> None:
        self.me = me
        self._host = host
        self._tls = tls
        self._incarnations = incarnations
        self._owner = owner
        self._silence_seconds = silence_seconds
        self._nursery: trio.Nursery | None = None
        self.peers: dict[int, Peer] = {}
        self.told_removed: str | None = None
        """Why this member has to stop: another one has told it so."""

    # --- who they are ---------------------------------------------------------------------------

    def update(self, addresses: dict[int, Address]) -> None:
        """From now on these are the other members; streams to and from all others end."""
        for id_, address in sorted(addresses.items()):
            peer = self.peers.get(id_)
            if peer is not None and peer.address == address:
                peer.guest = False
            elif id_ != self.me.id:
                self._add(Peer(id_, address))
        for id_ in [id_ for id_, peer in self.peers.items() if id_ not in addresses]:
            if not self.peers[id_].guest or self._owner.is_removed(id_):
                self._end(id_)

    def _add(self, peer: Peer) -> None:
        old = self.peers.get(peer.id)
        if old is not None:
            self._end(peer.id)
            peer.name, peer.client_address = old.name, old.client_address
            peer.told_address, peer.incarnation = old.told_address, old.incarnation
        self.peers[peer.id] = peer
        if self._nursery is not None:
            self._nursery.start_soon(self._keep_connected, peer)

    def _end(self, id_: int) -> None:
        peer = self.peers.pop(id_)
        peer.life.cancel()
        if peer.receiving is not None:
            peer.receiving.cancel()

    # --- out ------------------------------------------------------------------------------------

    def send(self, messages: list[Message]) -> None:
        """Queue messages for their receivers, or drop them."""
        now = trio.current_time()
        spoken_to: dict[int, Peer] = {}
        for message in messages:
            peer = self.peers.get(message.to)
            if peer is None:
                continue
            if type(message) is InstallSnapshot:
                self._start_snapshot(peer, message)
            elif not peer.connected or len(peer.outbox) >= OUTBOX_MAX:
                peer.dropped += 1
                self._owner.unreachable(peer.id)
            else:
                peer.outbox.add(to_wire(message))
                peer.spoke_at = now
                if peer.unanswered_since is None:
                    peer.unanswered_since = now
                spoken_to[peer.id] = peer
        for peer in spoken_to.values():
            peer.outbox.flush()

    def check(self) -> None:
        """Once in a while: leave connections over which only we talk, and still do."""
        now, limit = trio.current_time(), self._silence_seconds
        for peer in self.peers.values():
            since = peer.unanswered_since
            if not peer.connected or since is None or peer.sending is None:
                continue
            if now - since > limit and now - peer.spoke_at < limit / 2:
                log.info("peer is silent peer=%d seconds=%.1f", peer.id, now - since)
                peer.sending.cancel()

    async def run(self) -> None:
        """Keep a stream open to every peer, until cancelled."""
        async with trio.open_nursery() as nursery:
            for peer in self.peers.values():
                nursery.start_soon(self._keep_connected, peer)
            self._nursery = nursery
            await trio.sleep_forever()

    async def _keep_connected(self, peer: Peer) -> None:
        with peer.life:
            await self._connect_again_and_again(peer)

    async def _connect_again_and_again(self, peer: Peer) -> None:
        backoff = BACKOFF_MIN_SECONDS
        while True:
            with trio.CancelScope() as scope:
                peer.sending = scope
                try:
                    async with await self._connect(peer, "messages") as stream:
                        backoff = BACKOFF_MIN_SECONDS
                        peer.connected, peer.connected_at = True, trio.current_time()
                        log.info("connected to peer=%d address=%s", peer.id, peer.address)
                        await self._send_all(peer, stream)
                except (*GONE, ProtocolError, trio.TooSlowError) as error:
                    log.debug("no stream to peer=%d error=%r", peer.id, error)
                except WrongCluster as error:
                    log.error("refused by peer=%d reason=%s", peer.id, error)
                    backoff = BACKOFF_MAX_SECONDS
            if peer.connected:
                log.info("lost peer=%d", peer.id)
                self._owner.unreachable(peer.id)
            peer.connected, peer.unanswered_since = False, None
            peer.dropped += peer.outbox.clear()
            await trio.sleep(backoff * self._host.rng.uniform(0.5, 1.5))
            backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)

    async def _send_all(self, peer: Peer, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_closed, stream, nursery.cancel_scope)
            with contextlib.suppress(*GONE):
                await peer.outbox.drain(stream)
            nursery.cancel_scope.cancel()

    async def _connect(self, peer: Peer, purpose: str) -> trio.abc.Stream:
        """A stream on which the peer has accepted our hello.

        Raises OSError, trio.BrokenResourceError, trio.TooSlowError, WrongCluster, ProtocolError.
        """
        with trio.fail_after(CONNECT_SECONDS):
            plain = await self._host.net.open_stream(peer.address)
            context = self._tls.client if self._tls else None
            stream = secured(plain, context, peer.address.host)
            try:
                await stream.send_all(encode([self.me.hello(peer.id, purpose)]))
                answer = await _first_message(stream, FrameReader(65536))
                if answer[0] == "removed" and len(answer) > 1:
                    self.told_removed = str(answer[1])
                    raise WrongCluster(f"{WrongCluster.text}: {answer[1]}")
                if answer[0] == "refused" and len(answer) > 1:
                    raise WrongCluster(f"{WrongCluster.text}: {answer[1]}")
                if answer[0] != "ok" or len(answer) != 2 or type(answer[1]) is not int:
                    raise ProtocolError("a hello is answered with ok or refused")
                await self._incarnations.check(peer.id, answer[1])
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        return stream

    # --- snapshots ------------------------------------------------------------------------------

    def _start_snapshot(self, peer: Peer, message: InstallSnapshot) -> None:
        """A snapshot goes out over a stream of its own, so that heartbeats don't wait for it."""
        if peer.snapshot_under_way:
            return
        if self._nursery is None:
            self._owner.snapshot_sent(peer.id, False)
            return
        peer.snapshot_under_way = True
        self._nursery.start_soon(self._send_snapshot, peer, message)

    async def _send_snapshot(self, peer: Peer, message: InstallSnapshot) -> None:
        ok = False
        try:
            snapshot = await self._owner.newest_snapshot()
            if snapshot is not None:
                with trio.fail_after(SNAPSHOT_SECONDS):
                    ok = await self._deliver_snapshot(peer, message, snapshot)
        except (*GONE, ProtocolError, WrongCluster, trio.TooSlowError) as error:
            log.warning("snapshot did not reach peer=%d error=%r", peer.id, error)
        finally:
            peer.snapshot_under_way = False
        self._owner.snapshot_sent(peer.id, ok)

    async def _deliver_snapshot(
        self, peer: Peer, message: InstallSnapshot, snapshot: Snapshot
    ) -> bool:
        meta, data = snapshot
        log.info("snapshot goes to peer=%d index=%d bytes=%d", peer.id, meta.index, len(data))
        head = to_wire(message._replace(snapshot=Snapshot(meta, b"")))
        async with await self._connect(peer, "snapshot") as stream:
            await stream.send_all(frame_head(head, len(data)))
            rest = memoryview(data)
            while rest:
                await stream.send_all(rest[:SNAPSHOT_CHUNK_BYTES])
                rest = rest[SNAPSHOT_CHUNK_BYTES:]
            answer = await _first_message(stream, FrameReader(65536))
        return bool(answer[0] == "received")

    # --- in -------------------------------------------------------------------------------------

    async def serve(self, listener: Listener) -> None:
        """Take in the streams of the peers, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    log.warning("accept failed error=%s", error)
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._serve_one, stream, self._server_context())

    def _server_context(self) -> ssl.SSLContext | None:
        return self._tls.server if self._tls else None

    async def _serve_one(self, plain: trio.abc.Stream, context: ssl.SSLContext | None) -> None:
        stream = secured(plain, context)
        try:
            reader = FrameReader(MAX_FRAME_FROM_MEMBER)
            with trio.fail_after(CONNECT_SECONDS):
                hello = await _first_message(stream, reader)
                peer, answer = await self._judge(hello)
                await stream.send_all(encode([answer]))
            if peer is None:
                log.error("refused a peer: %s", answer[1])
                return
            if hello[7] == "snapshot":
                await self._receive_snapshot(peer, stream, reader)
            else:
                await self._receive(peer, stream, reader)
        except (*GONE, trio.TooSlowError):
            pass
        except (ProtocolError, MessageError) as error:
            log.warning("closing a peer's stream error=%s", error)
        finally:
            await trio.aclose_forcefully(stream)

    async def _judge(self, hello: list[Any]) -> tuple[Peer | None, list[Any]]:
        """The peer that a hello comes from, None where it is refused, and the answer to it.

        A stranger is no enemy: one that has more of the log than we may know members that we do
        not (thesis 4.1), so it's served as a guest unless it is known to be removed.
        """
        shape = (str, int, str, int, int, int, int, str, str, str, str)
        if tuple(map(type, hello)) != shape or hello[0] != "peer":
            raise ProtocolError("the first message on a peer's stream is its hello")
        sender, incarnation = hello[4], hello[6]
        reason = self._misdirected(hello)
        if reason:
            return None, ["refused", reason]
        if self._owner.is_removed(sender):
            return None, ["removed", f"member {sender} was removed from the cluster"]
        try:
            address = parse_address(hello[9])
            known = self.peers.get(sender)
            if known is None:
                self._incarnations.look(sender, incarnation)
                if sum(peer.guest for peer in self.peers.values()) >= GUESTS_MAX:
                    return None, ["refused", f"member {sender} is not in this cluster"]
            else:
                await self._incarnations.check(sender, incarnation)
            peer = self.peers.get(sender)
            if peer is None or (peer.guest and peer.address != address):
                self._add(Peer(sender, address, guest=True))
                peer = self.peers[sender]
            peer.client_address = parse_address(hello[8])
        except (WrongCluster, ValueError) as error:
            return None, ["refused", str(error)]
        peer.told_address, peer.name, peer.incarnation = hello[9], hello[10], incarnation
        return peer, ["ok", self.me.incarnation]

    def _misdirected(self, hello: list[Any]) -> str:
        """Why a hello is not meant for this member of this cluster; empty where it is."""
        _, version, cluster, lineage, _, to, *_ = hello
        me = self.me
        if version != VERSION:
            return f"protocol version {version}, this member speaks {VERSION}"
        if cluster != me.cluster:
            return f"cluster {cluster!r:.80}, this is a member of {me.cluster!r}"
        if lineage >= 0 and me.lineage() >= 0 and lineage != me.lineage():
            return (
                f"lineage {lineage:x}, this is {me.lineage():x}: one of the two was restored from "
                "a backup, and they are not members of the same cluster any more"
            )
        if to != me.id:
            return f"a message for member {to} at the address of member {me.id}"
        return ""

    async def _receive(self, peer: Peer, stream: trio.abc.Stream, reader: FrameReader) -> None:
        if peer.receiving is not None:
            peer.receiving.cancel()  # of one sender the newest stream counts
        with trio.CancelScope() as scope:
            peer.receiving = scope
            try:
                while data := await receive(stream, CHUNK_BYTES):
                    messages = [from_wire(message) for message in flatten(reader.feed(data))]
                    self._arrived(peer, messages)
                    await self._owner.wait_room()
            finally:
                if peer.receiving is scope:
                    peer.receiving = None
                    self._owner.gone(peer.id)
                    if peer.guest and self.peers.get(peer.id) is peer:
                        self._end(peer.id)

    async def _receive_snapshot(
        self, peer: Peer, stream: trio.abc.Stream, reader: FrameReader
    ) -> None:
        while data := await stream.receive_some(SNAPSHOT_CHUNK_BYTES):
            messages = flatten(reader.feed(data))
            peer.heard_at = trio.current_time()
            if messages:
                self._arrived(peer, [from_wire(message) for message in messages])
                await stream.send_all(encode([["received"]]))

    def _arrived(self, peer: Peer, messages: list[Message]) -> None:
        me, sender = self.me.id, peer.id
        for message in messages:
            if message.sender != sender or message.to != me:
                raise ProtocolError(f"member {sender} sent a message of {message.sender}")
        peer.heard_at, peer.unanswered_since = trio.current_time(), None
        self._owner.receive(messages)


async def _first_message(stream: trio.abc.Stream, reader: FrameReader) -> list[Any]:
    """The one message that stands alone at the beginning of a stream."""
    while True:
        data = await stream.receive_some(4096)
        if not data:
            raise trio.BrokenResourceError("closed before it said anything")
        messages = flatten(reader.feed(data))
        if messages:
            first: list[Any] = messages[0]
            return first


async def _until_closed(stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
    """The other side says nothing more on our stream; its end means the connection's end."""
    try:
        while await stream.receive_some(4096):
            pass
    except GONE:
        pass
    scope.cancel()
