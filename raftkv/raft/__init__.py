"""Raft as a pure value: messages, ticks and proposals go into a `RaftNode`, `Effects` come out.

node.py         RaftNode, the tables of handlers, what a difference of terms means
effects.py      the batch that the shell obeys, field by field; status
core.py         the state all roles share, the table of transitions
follower.py candidate.py leader.py voter.py     the roles
replication.py progress.py      what a leader sends to whom, and how far ahead
reads.py membership.py quorum.py log.py         one idea each
messages.py config.py errors.py                 the words
"""

from raftkv.raft.config import RaftConfig, Restored
from raftkv.raft.effects import Effects, PeerStatus, RaftStatus, Role
from raftkv.raft.errors import (
    ChangeRefused,
    MessageError,
    NotLeader,
    ProposalDropped,
    RaftError,
    TransferRefused,
)
from raftkv.raft.membership import Change, ChangeKind, Configuration
from raftkv.raft.messages import (
    MEMBERSHIP,
    NORMAL,
    Entry,
    HardState,
    InstallSnapshot,
    Message,
    Snapshot,
    SnapshotMeta,
    from_wire,
    to_wire,
)
from raftkv.raft.node import RaftNode

__all__ = [
    "MEMBERSHIP",
    "NORMAL",
    "Change",
    "ChangeKind",
    "ChangeRefused",
    "Configuration",
    "Effects",
    "Entry",
    "HardState",
    "InstallSnapshot",
    "Message",
    "MessageError",
    "NotLeader",
    "PeerStatus",
    "ProposalDropped",
    "RaftConfig",
    "RaftError",
    "RaftNode",
    "RaftStatus",
    "Restored",
    "Role",
    "Snapshot",
    "SnapshotMeta",
    "TransferRefused",
    "from_wire",
    "to_wire",
]
