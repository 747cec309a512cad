"""`open_server`: a member from its log to its listeners, and back.

Owns: the nursery of all the member's tasks. Entering means that the log is read, the listeners
are bound and the actor runs, not that there's a leader. Leaving stops everything; nothing needs
saving then, for whatever was acknowledged is durable.

A broken disk or invariant in any task ends them all and is raised here: StorageFailed, WalDamaged
and the like as they are, so that a caller can name them.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import AsyncIterator
from typing import Any

import trio

from raftkv.errors import InvalidRequest, KvError, MemberRemoved, StorageFailed, Unavailable
from raftkv.host import Address, Host
from raftkv.mvcc.machine import Machine
from raftkv.raft.config import RaftConfig, Restored
from raftkv.raft.errors import RaftError
from raftkv.raft.messages import InstallSnapshot, Message, Snapshot
from raftkv.raft.node import RaftNode
from raftkv.server.backups import Backups
from raftkv.server.config import ServerConfig
from raftkv.server.hashes import Hashes
from raftkv.server.inbox import Inbox, Proposal
from raftkv.server.incarnations import Incarnations
from raftkv.server.peers import Peers, Self
from raftkv.server.reading import range_result
from raftkv.server.replica import Replica
from raftkv.server.roster import Roster
from raftkv.server.sessions import Session, Sessions
from raftkv.server.snapshots import Snapshots
from raftkv.server.status import status
from raftkv.server.unsynced import UnsyncedDisk
from raftkv.storage.replay import Identity, Recovered
from raftkv.storage.wal import Wal
from raftkv.streams import Flusher, only_error

__all__ = ["Server", "open_server"]

log = logging.getLogger(__name__)

SILENCE_ELECTIONS = 3
"""A peer that says nothing for so many election timeouts gets a new connection."""
HANDOVER_ELECTIONS = 1


class Server:
    """A running member. Made by `open_server`."""

    def __init__(self, config: ServerConfig, host: Host, wal: Wal, recovered: Recovered) -> None:
        self.config = config
        self._host = host
        disk = host.disk(config.data_dir)
        meta = recovered.snapshot_meta
        machine = Machine.restore(recovered.snapshot_data) if meta else Machine()
        applied = meta.index if meta else 0
        restored = Restored(recovered.hard_state, meta, recovered.entries, applied)
        raft_config = RaftConfig(
            id=config.id,
            election_ticks=config.election_ticks,
            heartbeat_ticks=config.heartbeat_ticks,
            hold_commit_news=True,
            campaign_at_start=config.campaign_at_start or len(config.voters) == 1,
        )
        self.snapshots = Snapshots(
            disk=disk,
            wal=wal,
            newest=meta,
            size=len(recovered.snapshot_data),
            every_entries=config.snapshot_entries,
            every_bytes=config.snapshot_bytes,
            keep_behind=config.catch_up_entries,
        )
        me = Self(
            cluster=config.cluster,
            id=config.id,
            name=config.display_name,
            incarnation=wal.identity.incarnation,
            lineage=self._lineage,
            client_address=lambda: self.advertised_address,
            peer_address=lambda: self.advertised_peer_address,
        )
        self.peers = Peers(
            me,
            host,
            config.peer_tls,
            Incarnations(disk, self._published_incarnation),
            self,
            SILENCE_ELECTIONS * config.election_seconds,
        )
        self.roster = Roster(config, self.peers)
        self.roster.appended(recovered.entries)
        flusher = Flusher()
        self.replica = Replica(
            roster=self.roster,
            flusher=flusher,
            node=RaftNode(raft_config, restored, config.voters, host.rng),
            machine=machine,
            wal=wal,
            snapshots=self.snapshots,
            send=self.peers.send,
            leader_address=self.client_address_of,
            election_seconds=config.election_seconds,
            check_seconds=config.check_seconds,
            quota_bytes=config.quota_bytes,
        )
        self.inbox: Inbox = self.replica.inbox
        self._backups = Backups()
        self._hashes = Hashes()
        self.sessions = Sessions(self, config.tls, flusher)
        self._client_address = config.client_address
        self._peer_address = self._own_peer_address()

    def _own_peer_address(self) -> Address:
        """Where to listen for peers."""
        if self.config.peer_address is not None:
            return self.config.peer_address
        recorded = self.roster.peer_address(self.config.id, self.replica.machine.members)
        if recorded is None:
            raise ValueError("this member's peer address is neither given nor known from its log")
        return recorded

    # --- what a user of the server sees ---------------------------------------------------------

    @property
    def client_address(self) -> Address:
        """Where clients are served, with the real port."""
        return self._client_address

    @property
    def peer_address(self) -> Address:
        return self._peer_address

    @property
    def advertised_address(self) -> Address:
        return self.config.advertise_client_address or self._client_address

    @property
    def advertised_peer_address(self) -> Address:
        config = self.config
        return config.advertise_peer_address or config.peers.get(config.id) or self._peer_address

    @property
    def listens_for_peers(self) -> bool:
        """A single member that was never told of peers has no use for a second port."""
        node = self.replica.node
        return bool(self.config.peers or self.config.join or node.configuration.members[1:])

    @property
    def id(self) -> int:
        return self.config.id

    @property
    def is_leader(self) -> bool:
        return self.replica.is_leader

    @property
    def leader(self) -> int:
        """The leader's id as far as known, else 0."""
        return self.replica.node.leader

    @property
    def term(self) -> int:
        return self.replica.node.term

    @property
    def revision(self) -> int:
        """The store's, here and now."""
        return self.replica.machine.revision

    @property
    def compact_revision(self) -> int:
        return self.replica.machine.compact_revision

    def open_local(self) -> trio.abc.Stream:
        """A client's connection from within this process; no TLS. Raises OSError."""
        ours, theirs = trio.socket.socketpair()
        try:
            self.sessions.attach(trio.SocketStream(theirs))
        except OSError:
            ours.close()
            theirs.close()
            raise
        return trio.SocketStream(ours)

    def status(self) -> dict[str, Any]:
        return status(self)

    async def hand_over(self) -> None:
        """Before a planned stop: give leadership away, so that nobody waits for an election."""
        node = self.replica.node
        if not self.is_leader or len(node.configuration.voters) == 1:
            return
        progress = node.status().progress
        active = [(peer.match, id_) for id_, peer in progress.items() if peer.active]
        if not active:
            return
        successor = max(active)[1]
        log.info("handing leadership over to=%d", successor)
        self.inbox.call(lambda: self._transfer(successor))
        with trio.move_on_after(HANDOVER_ELECTIONS * self.config.election_seconds):
            while self.replica.is_leader:
                await trio.sleep(self.config.tick_seconds / 4)

    def _transfer(self, to: int) -> None:
        with contextlib.suppress(RaftError):
            self.replica.node.transfer_leadership(to)

    # --- tasks ----------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """Bind the listeners and start all tasks in the nursery, where they outlive this call.

        Raises OSError: an address is in use or not ours.
        """
        config, net = self.config, self._host.net
        client_listener = await net.listen(config.client_address)
        self._client_address = client_listener.address
        nursery.start_soon(_closing, client_listener, self.sessions.serve)
        if self.listens_for_peers:
            peer_listener = await net.listen(self._peer_address)
            self._peer_address = peer_listener.address
            nursery.start_soon(_closing, peer_listener, self.peers.serve)
            nursery.start_soon(self.peers.run)
        replica = self.replica
        self.roster.refresh(replica.node.configuration, replica.machine.members)
        nursery.start_soon(self.replica.run)
        nursery.start_soon(self.replica.watches.tell)
        nursery.start_soon(self.replica.watches.catch_up)
        nursery.start_soon(self.snapshots.run, self.inbox.wake)
        nursery.start_soon(self._hashes.run)
        nursery.start_soon(self._ticker)

    async def _ticker(self) -> None:
        """The one place where time becomes ticks."""
        config = self.config
        progress_at = trio.current_time() + config.progress_seconds
        while True:
            await trio.sleep(config.tick_seconds)
            self.replica.tick()
            self.peers.check()
            self._backups.expire(trio.current_time())
            await self._end_if_removed()
            if trio.current_time() >= progress_at:
                self.replica.watches.progress_round()
                progress_at += config.progress_seconds

    async def _end_if_removed(self) -> None:
        """Raise MemberRemoved once that is certain, after a moment in which others hear of it."""
        reason = self.peers.told_removed
        if self.is_removed(self.config.id) or reason is not None:
            log.warning("this member was removed from the cluster, stopping")
            await trio.sleep(self.config.election_seconds)
            raise self.removed_error()

    def removed_error(self) -> MemberRemoved:
        config = self.config
        return MemberRemoved(
            f"{MemberRemoved.text}: {config.display_name} (id {config.id}); to use this machine "
            "again, delete its data directory and add it under a new name with `raftkv member add`"
        )

    def is_removed(self, member: int) -> bool:
        return self.replica.machine.members.is_removed(member)

    def _lineage(self) -> int:
        """-1 as long as there's no log: a member that joins takes what it's given."""
        replica = self.replica
        if not replica.node.configuration.members:
            return -1
        return replica.machine.members.lineage

    def _published_incarnation(self, member: int) -> int:
        info = self.replica.machine.members.get(member)
        return info.incarnation if info is not None else 0

    # --- for the peers (PeerHost) ---------------------------------------------------------------

    def receive(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, InstallSnapshot) and not self.replica.prepare(message):
                continue
            self.inbox.messages.append(message)
        self.inbox.wake()

    async def wait_room(self) -> None:
        if self.inbox.full:
            await self.inbox.wait_room()

    def unreachable(self, peer: int) -> None:
        self.inbox.call(lambda: self.replica.node.report_unreachable(peer))

    def gone(self, peer: int) -> None:
        self.inbox.call(lambda: self.replica.node.report_gone(peer))

    def snapshot_sent(self, peer: int, ok: bool) -> None:
        self.inbox.call(lambda: self.replica.node.report_snapshot(peer, ok))

    async def newest_snapshot(self) -> Snapshot | None:
        return await self.snapshots.read_newest()

    def client_address_of(self, member: int) -> str:
        """Where clients reach a member, as far as it told us."""
        if member == self.config.id:
            return str(self.advertised_address)
        return self.roster.describe(member, self.replica.machine.members).client_address

    # --- for the sessions (Service) -------------------------------------------------------------

    def hello(self) -> list[Any]:
        return [self.config.cluster, self.config.id, self.config.display_name]

    def refusal(self) -> KvError | None:
        if self.replica.sync_stall > self.config.election_seconds:
            return Unavailable("etcdserver: the disk does not answer")
        return self.replica.refusal()

    def new_lease_id(self) -> int:
        return self._host.rng.getrandbits(62) | 1

    def range_now(self, arguments: list[Any]) -> list[Any]:
        return range_result(self.replica.machine, arguments)

    def snapshot_open(self, session: Session) -> list[Any]:
        return self._backups.open(session.number, self.replica.machine, trio.current_time())

    def snapshot_read(self, session: Session) -> list[Any]:
        return self._backups.read(session.number)

    def hash(self, session: Session, request_id: int, revision: int) -> None:
        self._hashes.ask(session, request_id, self.replica.machine.hash_kv(revision))

    def watch(self, session: Session, request_id: int, message: list[Any]) -> None:
        self.replica.watches.create(session, request_id, message)

    def watch_cancel(self, session: Session, request_id: int, message: list[Any]) -> None:
        self.replica.watches.cancel(session, request_id, message)

    def watch_progress(self, session: Session, request_id: int, message: list[Any]) -> None:
        self.replica.watches.ask_progress(session, request_id, message)

    def forget(self, session: Session) -> None:
        self.replica.watches.forget(session)
        self._backups.close(session.number)

    def members(self) -> list[Any]:
        """`[id, name, peer address, client address, is leader, is learner]`, in order of id."""
        node, table = self.replica.node, self.replica.machine.members
        leader, learners = node.leader, node.configuration.learners
        rows = []
        for id_ in node.configuration.members:
            info = self.roster.describe(id_, table)
            name = self.config.display_name if id_ == self.config.id else info.name
            address = info.peer_address if self.listens_for_peers else ""
            rows.append([id_, name, address, info.client_address, id_ == leader, id_ in learners])
        return rows

    def change_membership(self, session: Session, request_id: int, command: list[Any]) -> None:
        def change() -> None:
            proposal = Proposal(session, request_id, command)
            try:
                self.replica.change_membership(proposal, self.listens_for_peers)
            except KvError as error:
                session.fail(request_id, error)

        self.inbox.call(change)

    def move_leader(self, session: Session, request_id: int, to: int) -> None:
        def transfer() -> None:
            refusal = self.replica.refusal()
            if refusal is not None:
                session.fail(request_id, refusal)
                return
            try:
                self.replica.node.transfer_leadership(to)
            except RaftError as error:
                session.fail(request_id, InvalidRequest(f"leadership can't be moved: {error}"))
            else:
                session.reply(request_id, [])

        self.inbox.call(transfer)


def ended_by(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended a member. A disk that fails, fails in several tasks at once: the error with the
    system's own stands for all of them."""
    failures, others = group.split(StorageFailed)
    if failures is None or others is not None:
        return only_error(group)
    told = _leaves(failures)
    return next((error for error in told if error.__cause__ is not None), told[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in _leaves(each)]


@contextlib.asynccontextmanager
async def open_server(config: ServerConfig, host: Host) -> AsyncIterator[Server]:
    """Run a member as long as the block lasts.

    Raises OSError (an address), WalDamaged, SnapshotDamaged, Corrupt, WrongCluster (the data
    directory), StorageFailed (the disk, then or later), MemberRemoved (then or later).
    """
    identity = Identity(
        zlib.crc32(config.cluster.encode()), config.id, host.rng.getrandbits(62) | 1
    )
    try:
        disk = host.disk(config.data_dir)
    except OSError as error:
        raise StorageFailed(f"{config.data_dir} can't be used: {error}") from error
    wal, recovered = await Wal.open(disk if config.fsync else UnsyncedDisk(disk), identity)
    for warning in recovered.warnings:
        log.warning("%s", warning)
    try:
        server = Server(config, host, wal, recovered)
        if server.is_removed(config.id):
            raise server.removed_error()
        try:
            async with trio.open_nursery() as nursery:
                await server.start(nursery)
                log.info(
                    "member id=%d serves clients at %s, peers at %s",
                    config.id,
                    server.client_address,
                    server.peer_address if server.listens_for_peers else "-",
                )
                yield server
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise ended_by(group) from None
    finally:
        wal.close()


async def _closing(listener: Any, serve: Any) -> None:
    """Serve a listener and close it at the end."""
    try:
        await serve(listener)
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()
