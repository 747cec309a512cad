"""Who the members are and where they are reached: Raft's ids, the replicated table, the rest.

Owns: the addresses that peers are connected by, what the leader publishes in the table, and the
requests of clients to change the membership. Runs on the replica's task, synchronously.

A configuration counts from the moment its entry is in the log (`raftkv.raft.membership`), but the
table knows a new member only when the change is committed; between the two its address is known
from the entry itself (`appended`). An address on this member's own command line wins over both.

The leader publishes what members tell of themselves in their hellos, and makes voters of the
learners that were added to become that, one at a time, as soon as the core finds them caught up.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from raftkv.errors import (
    InvalidRequest,
    KvError,
    LearnerNotReady,
    MemberNotFound,
    ProposalDropped,
    TooManyLearners,
    UnhealthyCluster,
)
from raftkv.host import Address, parse_address
from raftkv.mvcc.members import MemberInfo, MemberTable
from raftkv.raft import errors as raft_errors
from raftkv.raft.membership import Change, ChangeKind, Configuration, decode
from raftkv.raft.messages import MEMBERSHIP, Entry
from raftkv.raft.node import RaftNode
from raftkv.server.config import ServerConfig
from raftkv.server.peers import Peers
from raftkv.wire.framing import pack, unpack

__all__ = ["Roster", "change_of", "context_of", "refusal_of"]

log = logging.getLogger(__name__)

LEARNERS_MAX = 4


class Roster:
    def __init__(self, config: ServerConfig, peers: Peers) -> None:
        self._config = config
        self._peers = peers
        self._announced: dict[int, MemberInfo] = {}
        self._seen: tuple[Configuration, MemberTable, int] | None = None

    # --- addresses ------------------------------------------------------------------------------

    def appended(self, entries: Sequence[Entry]) -> None:
        """Entries went into the log: those that add members say where they are."""
        for entry in entries:
            if entry.kind == MEMBERSHIP:
                command = context_of(entry)
                if command is not None and command[0] == "member_add":
                    _, member, name, address, promote = command
                    self._announced[member] = MemberInfo(member, name, address, promote=promote)

    def refresh(self, configuration: Configuration, table: MemberTable) -> None:
        """Connect to those who are members now, and to no others. Cheap when nothing changed."""
        seen = self._seen
        if (
            seen is not None
            and seen[0] is configuration
            and seen[1] is table
            and seen[2] == table.changes
        ):
            return
        self._seen = (configuration, table, table.changes)
        members = configuration.members or tuple(sorted(self._config.peers))
        addresses = {id_: self.peer_address(id_, table) for id_ in members}
        self._peers.update({id_: found for id_, found in addresses.items() if found is not None})

    def peer_address(self, member: int, table: MemberTable) -> Address | None:
        given = self._config.peers.get(member)
        if given is not None:
            return given
        for info in (table.get(member), self._announced.get(member)):
            if info is not None and info.peer_address:
                with contextlib.suppress(ValueError):
                    return parse_address(info.peer_address)
        return None

    def describe(self, member: int, table: MemberTable) -> MemberInfo:
        """The best that is known of a member: what it tells itself, else the table."""
        told = self._told(member)
        if told is not None:
            return told
        given = self._config.peers.get(member)
        recorded = table.get(member) or self._announced.get(member)
        return recorded or MemberInfo(member, "", str(given) if given else "")

    def _told(self, member: int) -> MemberInfo | None:
        me = self._peers.me
        if member == me.id:
            told_address, client = str(me.peer_address()), str(me.client_address())
            return MemberInfo(me.id, me.name, told_address, client, me.incarnation)
        peer = self._peers.peers.get(member)
        if peer is None or not peer.incarnation:
            return None
        client = str(peer.client_address) if peer.client_address else ""
        return MemberInfo(member, peer.name, peer.told_address, client, peer.incarnation)

    # --- the leader's part ----------------------------------------------------------------------

    def unpublished(self, members: Sequence[int], table: MemberTable) -> list[list[Any]]:
        """The commands that bring the table up to what members tell."""
        commands: list[list[Any]] = []
        for member in members:
            known = table.get(member)
            now = self.describe(member, table)
            if now == MemberInfo(member, "", ""):
                continue  # just proposed: what is known of it comes with its own entry
            if known is not None:
                incarnation = known.incarnation or now.incarnation
                now = now._replace(promote=known.promote, incarnation=incarnation)
            if now != known:
                commands.append(["member_info", *now[:5]])
        return commands

    def promote(self, node: RaftNode, table: MemberTable) -> None:
        """Make voters of the learners that are to be, where they have caught up."""
        for member in node.configuration.learners:
            info = table.get(member)
            if info is not None and info.promote:
                with contextlib.suppress(raft_errors.RaftError):
                    node.propose_membership(Change(ChangeKind.ADD_VOTER, member))
                    log.info("learner becomes a voter member=%d", member)

    def check(
        self, command: list[Any], configuration: Configuration, table: MemberTable, listening: bool
    ) -> None:
        """Raise the KvError with which the leader refuses a change, beyond what the core checks."""
        kind, member = command[0], command[1]
        if kind == "member_add":
            if not listening:
                raise InvalidRequest(
                    "etcdserver: this member listens for no peers; start it again with --peers "
                    "NAME=HOST:PORT, naming itself, then add members"
                )
            try:
                parse_address(command[3])
            except ValueError as error:
                raise InvalidRequest(f"etcdserver: the peer address {error}") from error
            known = MemberTable.load(table.dump())
            for id_ in configuration.members:
                known.update(self.describe(id_, table))
            known.check_new(member, command[2], command[3])
            if len(configuration.learners) >= LEARNERS_MAX:
                raise TooManyLearners
        elif member not in configuration.members:
            raise MemberNotFound(f"{MemberNotFound.text}: no member has id {member}")


def change_of(command: list[Any]) -> Change:
    """The core's change for a command; `member_promote` has no effect on the table."""
    member = command[1]
    if command[0] == "member_add":
        return Change(ChangeKind.ADD_LEARNER, member, pack(command))
    if command[0] == "member_remove":
        return Change(ChangeKind.REMOVE, member, pack(command))
    return Change(ChangeKind.ADD_VOTER, member)


def context_of(entry: Entry) -> list[Any] | None:
    """The command for the table that a MEMBERSHIP entry carries."""
    context = decode(entry.data)[1]
    if not context:
        return None
    command: list[Any] = unpack(context)
    return command


REFUSALS: tuple[tuple[type[raft_errors.RaftError], type[KvError]], ...] = (
    (raft_errors.ChangeTooEarly, ProposalDropped),
    (raft_errors.ProposalDropped, ProposalDropped),
    (raft_errors.LearnerBehind, LearnerNotReady),
    (raft_errors.QuorumAtRisk, UnhealthyCluster),
)


def refusal_of(error: raft_errors.RaftError) -> KvError:
    """The client's error for the core's."""
    for kind, found in REFUSALS:
        if isinstance(error, kind):
            return found(f"{found.text}: {error}")
    return InvalidRequest(f"etcdserver: {error}")
