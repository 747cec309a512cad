"""Bugs of others in membership changes and durability, each under the name of its story."""

from __future__ import annotations

import pytest

from raftkv.raft import (
    Change,
    ChangeKind,
    ChangeRefused,
    HardState,
    ProposalDropped,
    Role,
)
from raftkv.raft.messages import (
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from tests.raft.cluster import Cluster

# -- membership -----------------------------------------------------------------------------------


def with_learner() -> Cluster:
    cluster = Cluster()
    cluster.elect(1)
    cluster.add(4)
    cluster.nodes[1].propose_membership(Change(ChangeKind.ADD_LEARNER, 4, b"host:1"))
    cluster.settle()
    return cluster


def test_confchange_campaign_refused() -> None:
    """etcd#12133 speaks of changes committed and not applied. Here a configuration holds from its
    arrival in the log, so no campaign ever counts by an outdated one."""
    cluster = with_learner()
    cluster.nodes[1].propose_membership(Change(ChangeKind.ADD_VOTER, 4))
    cluster.take(1)
    cluster.deliver(2)  # in the log, neither durable nor committed
    cluster.nodes[2]._core.election_elapsed = 99
    cluster.nodes[2].campaign()
    cluster.run(2)
    asked = [m.to for m in cluster.mail if type(m).__name__ == "RequestPreVote"]
    assert asked == [1, 3, 4]


def test_confchange_only_after_commit_in_own_term() -> None:
    """The single-server bug of 2015: a new leader must commit an entry of its term first."""
    cluster = Cluster()
    leader = cluster.nodes[1]
    leader.campaign()
    while leader.role is not Role.LEADER:
        for id_ in (1, 2, 3):
            cluster.run(id_)
            cluster.deliver(id_)
    with pytest.raises(ChangeRefused, match="not committed an entry of its term"):
        leader.propose_membership(Change(ChangeKind.ADD_LEARNER, 4))
    cluster.settle()
    leader.propose_membership(Change(ChangeKind.ADD_LEARNER, 4))
    with pytest.raises(ChangeRefused, match="in progress"):
        leader.propose_membership(Change(ChangeKind.ADD_LEARNER, 5))


def test_confchange_is_taken_back_with_its_entry() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(1)
    cluster.nodes[1].propose_membership(Change(ChangeKind.REMOVE, 3))
    cluster.settle()
    assert cluster.nodes[1].configuration.voters == (1, 2)
    cluster.take_over(2)
    cluster.heal()
    cluster.tick(2)
    cluster.settle()
    assert [cluster.nodes[i].configuration.voters for i in (1, 2, 3)] == [(1, 2, 3)] * 3


def test_learner_votes() -> None:
    """etcd PR#10998: it may be a voter and not know it yet."""
    cluster = with_learner()
    learner = cluster.nodes[4]
    learner._core.election_elapsed = 99
    status = learner.status()
    learner.step(RequestVote(4, 2, status.term + 1, status.last_index, status.term, False))
    cluster.run(4)
    answers = [m for m in cluster.mail if isinstance(m, VoteResponse)]
    assert [m.granted for m in answers] == [True]


def test_learner_does_not_count_or_campaign() -> None:
    cluster = with_learner()
    cluster.nodes[4].campaign()
    cluster.tick(4, 100)
    assert cluster.nodes[4].role is Role.FOLLOWER
    cluster.isolate(1, 4)
    cluster.propose(1, b"x")
    cluster.settle()
    assert cluster.core(4).log.last_index == cluster.core(1).log.last_index
    assert cluster.data(1) == []


def test_promote_unstarted_refused() -> None:
    """etcd#15096: a learner that never answered must not become a voter."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.propose_membership(Change(ChangeKind.ADD_LEARNER, 4))
    cluster.settle()
    with pytest.raises(ChangeRefused, match="not started"):
        leader.propose_membership(Change(ChangeKind.ADD_VOTER, 4))
    cluster.add(4)
    cluster.tick(1)
    cluster.settle()
    leader.propose_membership(Change(ChangeKind.ADD_VOTER, 4))
    cluster.settle()
    assert cluster.nodes[4].configuration.voters == (1, 2, 3, 4)


def test_promote_of_a_lagging_learner_refused() -> None:
    cluster = Cluster(promotion_lag_max=3)
    leader = cluster.elect(1)
    cluster.add(4)
    leader.propose_membership(Change(ChangeKind.ADD_LEARNER, 4))
    cluster.settle()
    cluster.isolate(4)
    for _ in range(5):
        cluster.propose(1, b"x")
        cluster.settle()
    with pytest.raises(ChangeRefused, match="5 entries behind"):
        leader.propose_membership(Change(ChangeKind.ADD_VOTER, 4))


def test_change_that_loses_the_majority_refused() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.isolate(3)
    for _ in range(20):
        cluster.tick(1)
        cluster.settle()
    with pytest.raises(ChangeRefused, match=r"only \[1, 2\] could be reached|only \[1\]"):
        leader.propose_membership(Change(ChangeKind.REMOVE, 2))
    leader.propose_membership(Change(ChangeKind.REMOVE, 3))


def test_change_survives_a_crash_of_its_leader() -> None:
    """etcd#12136 for single changes: the next leader finishes what it finds in its log."""
    cluster = with_learner()
    cluster.nodes[1].propose_membership(Change(ChangeKind.ADD_VOTER, 4))
    cluster.run(1)
    cluster.deliver(2)
    cluster.run(2)
    cluster.mail.clear()
    cluster.nodes.pop(1)
    for _ in range(6):
        for id_ in (2, 3, 4):
            cluster.tick(id_, 10)
            cluster.settle(2, 3, 4)
    assert cluster.nodes[2].role is Role.LEADER
    assert cluster.nodes[3].configuration.voters == (1, 2, 3, 4)
    cluster.nodes[2].propose_membership(Change(ChangeKind.REMOVE, 1))


def test_zombie_member_gone() -> None:
    """etcd#20995: a removed member stays removed after snapshots and restarts."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.propose_membership(Change(ChangeKind.REMOVE, 3))
    cluster.settle()
    for id_ in (1, 2):
        cluster.snapshot(id_)
        cluster.start(id_)
        assert cluster.nodes[id_].configuration.voters == (1, 2)
    cluster.tick(3, 40)
    cluster.tick(1, 19)
    cluster.settle()
    assert cluster.nodes[1].role is Role.LEADER
    assert cluster.nodes[3].role is not Role.LEADER


def test_removed_leader_steps_down_after_the_commit() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.propose_membership(Change(ChangeKind.REMOVE, 1))
    with pytest.raises(ProposalDropped, match="being removed"):
        leader.propose(b"x")
    cluster.run(1)
    assert cluster.role(1) is Role.LEADER, "not before the others have it"
    cluster.settle()
    assert leader.role is Role.FOLLOWER
    assert Role.LEADER in {cluster.nodes[2].role, cluster.nodes[3].role}, "TimeoutNow named one"
    assert cluster.nodes[2].configuration.voters == (2, 3)


def test_leader_removed_but_not_committed_may_campaign() -> None:
    """Swarm seed 1287: only the removed voter's log was complete, nobody could be elected."""
    cluster = Cluster(2)
    cluster.elect(1)
    cluster.isolate(1)
    cluster.nodes[1].propose_membership(Change(ChangeKind.REMOVE, 1))
    cluster.settle()
    cluster.start(1)
    cluster.heal()
    for _ in range(6):
        for id_ in (1, 2):
            cluster.tick(id_, 10)
            cluster.settle()
    assert cluster.nodes[2].role is Role.LEADER
    assert cluster.nodes[2].configuration.voters == (2,)


# -- durability -----------------------------------------------------------------------------------


def test_acked_write_survives_single_node_kill() -> None:
    """etcd#14370: a cluster of one acknowledges nothing before its own sync."""
    cluster = Cluster(1)
    leader = cluster.elect(1)
    leader.propose(b"x")
    effects = cluster.take(1)
    assert [e.data for e in effects.entries] == [b"x"]
    assert effects.must_sync
    assert effects.committed == []
    cluster.persist(1)
    assert [e.data for e in cluster.take(1).committed] == [b"x"]


def test_hardstate_survives() -> None:
    """PSO#84: term and vote after a restart are those promised before it."""
    cluster = Cluster()
    node = cluster.nodes[2]
    cluster.run(2)
    node.step(RequestVote(2, 3, 5, 9, 4, True))
    cluster.run(2)
    assert cluster.disks[2].hard_state == HardState(5, 3, 1)
    restarted = cluster.start(2)
    assert (restarted.status().term, restarted.status().vote) == (5, 3)
    restarted.step(RequestVote(2, 1, 5, 9, 4, True))
    restarted.step(RequestVote(2, 3, 5, 9, 4, True))
    cluster.mail.clear()
    cluster.run(2)
    granted = {m.to: m.granted for m in cluster.mail if isinstance(m, VoteResponse)}
    assert granted == {1: False, 3: True}, "the same candidate again, but no other"


def test_lost_disk_is_noticed() -> None:
    """A member that forgot acknowledged entries crashes on the leader's word, loudly."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    cluster.disks[2].entries = cluster.disks[2].entries[:1]
    cluster.disks[2].hard_state = HardState(2, 1, 1)
    cluster.start(2)
    match = cluster.nodes[1].status().progress[2].match
    with pytest.raises(AssertionError, match="add it again with a new id"):
        cluster.nodes[2].step(Heartbeat(2, 1, 2, match, 0))


def test_ack_of_entries_never_sent_is_noticed() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    with pytest.raises(AssertionError, match="never sent"):
        leader.step(AppendResponse(1, 2, leader.term, 99, False, 0, 0))


def test_two_leaders_in_a_term_are_noticed() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    with pytest.raises(AssertionError, match="second leader"):
        leader.step(Heartbeat(1, 2, leader.term, 0, 0))


def test_stray_messages_are_ignored() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    before = leader.status()
    leader.step(TimeoutNow(1, 2, leader.term))
    leader.step(HeartbeatResponse(1, 9, leader.term, 0))
    leader.step(AppendResponse(1, 9, leader.term, 1, False, 0, 0))
    leader.step(VoteResponse(1, 2, leader.term - 1, True))
    assert leader.status() == before
