"""Sections 6 and 7 of the Raft paper, sentences of the thesis, and the tables of handlers."""

from __future__ import annotations

import pytest

from raftkv.raft import NotLeader, Role
from raftkv.raft.core import TRANSITIONS
from raftkv.raft.follower import FORGET_TICKS_MAX
from raftkv.raft.messages import (
    RequestPreVote,
    RequestVote,
)
from raftkv.raft.node import HANDLERS, TICKS
from tests.raft.cluster import Cluster


def test_lease_against_disruptive_servers() -> None:
    """6: Servers disregard RequestVote RPCs when they believe a current leader exists."""
    cluster = Cluster()
    cluster.elect(1)
    term = cluster.nodes[2].term
    cluster.nodes[2].step(RequestVote(2, 3, term + 1, 99, term, False))
    assert cluster.nodes[2].term == term
    cluster.nodes[2].step(RequestVote(2, 3, term + 1, 99, term, True))
    assert cluster.nodes[2].term == term + 1, "but a transfer was asked for by the leader itself"


def test_snapshot_brings_a_lagging_follower_along() -> None:
    """7: The leader must occasionally send snapshots to followers that lag behind."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(3)
    for n in range(5):
        cluster.propose(1, b"%d" % n)
    cluster.settle()
    taken = cluster.snapshot(1)
    cluster.propose(1, b"after")
    cluster.heal()
    cluster.tick(1)
    cluster.settle()
    assert cluster.disks[3].snapshot == taken
    assert cluster.data(3) == [b"after"]
    assert cluster.nodes[3].status().commit == cluster.nodes[1].status().commit
    assert cluster.nodes[1].status().progress[3].state == "replicate"


def test_snapshot_of_what_is_there_only_moves_the_commit_index() -> None:
    """7: If the follower receives a snapshot that describes a prefix of its log ... entries
    following the snapshot are still valid and must be retained."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.run(1)
    cluster.deliver(2)
    cluster.run(2)
    cluster.deliver(1)
    cluster.settle(1)
    snapshot = cluster.snapshot(1)
    follower = cluster.nodes[2]
    before = follower.status()
    from raftkv.raft import InstallSnapshot

    follower.step(InstallSnapshot(2, 1, follower.term, snapshot))
    after = follower.status()
    assert (after.last_index, after.first_index) == (before.last_index, before.first_index)
    assert after.commit == snapshot.meta.index > before.commit
    assert follower.take_effects().snapshot is None


def test_followers_redirect() -> None:
    """8: A follower rejects the client's request and supplies information about the most recent
    leader it has heard from."""
    cluster = Cluster()
    cluster.elect(2)
    with pytest.raises(NotLeader) as caught:
        cluster.nodes[1].propose(b"x")
    assert caught.value.leader == 2


def test_isolated_leader_steps_down() -> None:
    """Thesis 6.2: A leader steps down if an election timeout elapses without a successful round
    of heartbeats to a majority of its cluster."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(1)
    for _ in range(20):
        cluster.tick(1)
        cluster.settle()
    assert (cluster.role(1), cluster.nodes[1].leader) == (Role.FOLLOWER, 0)


def test_read_without_a_log_entry() -> None:
    """Thesis 6.4: readIndex = commit index at arrival, a round of heartbeats, then the read."""
    cluster = Cluster()
    leader = cluster.elect(1)
    commit, last = leader.status().commit, leader.status().last_index
    leader.read_index(1)
    cluster.settle()
    assert cluster.reads[1] == [(1, commit)]
    assert leader.status().last_index == last


# -- the tables -----------------------------------------------------------------------------------


def test_figure_4() -> None:
    """Figure 4: nobody becomes a leader but a candidate, and a leader only a follower."""
    assert [role for role, after in TRANSITIONS.items() if Role.LEADER in after] == [Role.CANDIDATE]
    assert TRANSITIONS[Role.LEADER] == (Role.FOLLOWER,)
    assert set(HANDLERS) == set(TICKS) == set(TRANSITIONS) == set(Role)


def test_votes_are_answered_in_every_role() -> None:
    for handlers in HANDLERS.values():
        assert RequestVote in handlers
        assert RequestPreVote in handlers


def test_a_leader_that_is_gone_is_replaced_soon() -> None:
    """Both followers lose its connection: neither waits for the lease or the whole timeout."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.settle()
    cluster.isolate(1)
    for id_ in (2, 3):
        cluster.nodes[id_].report_gone(1)
        assert cluster.nodes[id_].leader == 0
    for _ in range(FORGET_TICKS_MAX):
        for id_ in (2, 3):
            cluster.tick(id_)
            cluster.settle(2, 3)
    assert Role.LEADER in (cluster.role(2), cluster.role(3))


def test_a_leader_that_lives_is_not_deposed_by_one_broken_connection() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.settle()
    cluster.nodes[2].report_gone(3)
    assert cluster.nodes[2].leader == 1
    cluster.nodes[2].report_gone(1)
    cluster.tick(2, FORGET_TICKS_MAX)
    cluster.settle()
    assert leader.role is Role.LEADER
    cluster.tick(1)
    cluster.settle()
    assert cluster.nodes[2].leader == 1
