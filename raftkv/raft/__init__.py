"""Raft as a pure value: `RaftNode` in, `Effects` out. See node.py; the roles are files."""

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
