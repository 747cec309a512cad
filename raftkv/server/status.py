"""What a member tells of itself: one flat map, for people, tests and the chaos runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftkv.wire.protocol import MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from raftkv.server.main import Server

__all__ = ["status"]

VERSION = "3.6.0"
"""The etcd version whose semantics the store follows; clients compare it."""


def status(server: Server) -> dict[str, Any]:
    """Sizes in bytes, times in seconds. Cheap: nothing here walks over keys."""
    config, replica = server.config, server.replica
    machine, raft = replica.machine, replica.node.status()
    return {
        "version": VERSION,
        "cluster": config.cluster,
        "id": config.id,
        "name": config.display_name,
        "etcd_address": str(config.advertise_etcd_address or config.etcd_address or ""),
        "role": raft.role.value,
        "term": raft.term,
        "leader": raft.leader,
        "leader_address": server.client_address_of(raft.leader) if raft.leader else "",
        "revision": machine.revision,
        "compact_revision": machine.compact_revision,
        "digest": machine.digest,
        "raft_index": raft.last_index,
        "raft_commit": raft.commit,
        "raft_applied": replica.applied,
        "raft_first_index": raft.first_index,
        "snapshot_index": server.snapshots.index,
        "members": list(raft.voters),
        "learners": list(raft.learners),
        "peers_connected": [peer.id for peer in server.peers.peers.values() if peer.connected],
        "messages_dropped": sum(peer.dropped for peer in server.peers.peers.values()),
        "db_size": machine.size,
        "quota": config.quota_bytes,
        "max_request": MAX_REQUEST_BYTES,
        "leases": len(machine.leases),
        "watches": len(replica.watches),
        "watches_behind": replica.watches.behind,
        "sessions": server.sessions.count,
        "pending": replica.pending.proposals,
        "entries": replica.committed_entries,
        "commands": replica.committed_commands,
        "syncs": replica.syncs,
        "sync_stall": replica.sync_stall,
        "memory": config.memory_bytes() if config.memory_bytes else 0,
    }
