"""Bugs that other implementations had, each as a test under the name of its story."""

from __future__ import annotations

import pytest

from raftkv.raft import (
    Change,
    ChangeKind,
    ChangeRefused,
    HardState,
    NotLeader,
    ProposalDropped,
    Role,
    TransferRefused,
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

# -- reads ----------------------------------------------------------------------------------------


def test_readindex_id_never_reused() -> None:
    """etcd#20418: a delayed answer to an earlier round confirms nothing asked after it."""
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.read_index(1)
    cluster.run(1)
    for id_ in (2, 3):
        cluster.deliver(id_)
        cluster.run(id_)
    late = cluster.deliver(1, drop=True)
    assert [type(m) for m in late] == [HeartbeatResponse, HeartbeatResponse]
    leader.read_index(2)
    cluster.run(1)
    for message in late:
        leader.step(message)
    cluster.run(1)
    assert [read_id for read_id, _ in cluster.reads[1]] == [1]
    cluster.settle()
    assert [read_id for read_id, _ in cluster.reads[1]] == [1, 2]
    with pytest.raises(AssertionError, match="used before"):
        leader.read_index(2)


def test_readindex_waits_for_term_commit() -> None:
    """etcd#7331: before its no-op commits, a leader does not know what was committed."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.nodes[2].campaign()
    while cluster.nodes[2].role is not Role.LEADER:
        for id_ in (1, 2, 3):
            cluster.nodes[id_]._core.election_elapsed = 99  # no lease in the way
            cluster.deliver(id_)
            cluster.run(id_)
    leader = cluster.nodes[2]
    commit = leader.status().commit
    leader.read_index(1)
    cluster.run(2)
    assert cluster.reads[2] == []
    cluster.settle()
    (read,) = cluster.reads[2]
    assert read == (1, leader.status().commit)
    assert read[1] > commit


@pytest.mark.parametrize("check_quorum", [True, False])
def test_stale_leader_read_refused(check_quorum: bool) -> None:
    """A leader that was cut off and replaced never confirms a read."""
    cluster = Cluster(check_quorum=check_quorum)
    cluster.elect(1)
    cluster.isolate(1)
    cluster.nodes[1].read_index(1)
    cluster.take_over(2)
    cluster.propose(2, b"newer")
    cluster.settle()
    cluster.tick(1, 20)
    cluster.settle()
    assert cluster.reads[1] == []
    assert (cluster.nodes[1].role is Role.LEADER) is not check_quorum
    cluster.heal()
    cluster.tick(2)
    cluster.settle()
    assert cluster.reads[1] == []
    assert cluster.failed_reads[1] == [1]
    with pytest.raises(NotLeader):
        cluster.nodes[1].read_index(2)


def test_stale_reads_during_recovery() -> None:
    """etcd#3879: a restarted leader answers nothing from its old state before it leads again."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.start(1)
    with pytest.raises(NotLeader):
        cluster.nodes[1].read_index(1)
    cluster.nodes[1].campaign()
    with pytest.raises(NotLeader):
        cluster.nodes[1].read_index(1)


# -- elections ------------------------------------------------------------------------------------


def test_prevote_mixed_terms_no_deadlock() -> None:
    """etcd#8501: the member with the complete log is behind in term, the other ahead: the refusal
    of a pre-vote carries the higher term, so both meet."""
    cluster = Cluster(check_quorum=True)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(1, b"a")
    cluster.settle()
    cluster.core(3).reset(7)  # as if it had campaigned without pre-vote, in an older version
    cluster.start(2)
    cluster.nodes.pop(1)
    cluster.heal()
    for _ in range(4):
        for id_ in (2, 3):
            cluster.tick(id_, 10)
            cluster.settle()
    assert cluster.nodes[2].role is Role.LEADER
    assert cluster.nodes[2].term > 7


def test_isolated_rejoin_no_disruption() -> None:
    """etcd#9333: a member that was cut off comes back with its old term and follows."""
    cluster = Cluster()
    cluster.elect(1)
    term = cluster.nodes[1].term
    cluster.isolate(3)
    for _ in range(10):
        cluster.tick(3, 20)
        cluster.settle()
    assert cluster.nodes[3].role is Role.PRE_CANDIDATE
    cluster.heal()
    cluster.tick(3, 20)
    cluster.tick(1)
    cluster.settle()
    assert cluster.nodes[1].role is Role.LEADER
    assert [cluster.nodes[i].term for i in (1, 2, 3)] == [term] * 3
    assert cluster.nodes[3].leader == 1


def test_stuck_higher_term_member_is_freed() -> None:
    """Without pre-vote a member's term runs ahead; the leader learns it from the answer to its
    heartbeat and a new election unites all."""
    cluster = Cluster(pre_vote=False)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(3, 40)
    cluster.settle()
    cluster.heal()
    assert cluster.nodes[3].term > cluster.nodes[1].term
    for _ in range(60):
        for id_ in (1, 2, 3):
            cluster.tick(id_)
        cluster.settle()
    assert len({cluster.nodes[i].term for i in (1, 2, 3)}) == 1
    assert [cluster.nodes[i].role for i in (1, 2, 3)].count(Role.LEADER) == 1


def test_paused_follower_10x_election() -> None:
    """A leader that slept through ten elections (SIGSTOP) finds itself deposed, harmlessly."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"kept")
    cluster.settle()
    cluster.propose(1, b"lost")  # in the leader's memory only
    paused = cluster.nodes.pop(1)
    for _ in range(10):
        for id_ in (2, 3):
            cluster.tick(id_, 10)
            cluster.settle(2, 3)
    new = 2 if cluster.nodes[2].role is Role.LEADER else 3
    cluster.propose(new, b"new")
    cluster.settle(2, 3)
    cluster.nodes[1] = paused
    for _ in range(20):
        for id_ in (1, 2, 3):
            cluster.tick(id_)
        cluster.settle()
    assert paused.role is Role.FOLLOWER
    assert cluster.data(1) == cluster.data(2) == cluster.data(3) == [b"kept", b"new"]


@pytest.mark.parametrize("deaf", [True, False])
def test_asymmetric_partition_liveness(deaf: bool) -> None:
    """TigerBeetle 2023: a leader that hears nobody, or that only one member cannot hear."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.cut = {(2, 1), (3, 1)} if deaf else {(1, 3)}
    for _ in range(80):
        for id_ in (1, 2, 3):
            cluster.tick(id_)
        cluster.settle()
    leaders = [i for i in (1, 2, 3) if cluster.nodes[i].role is Role.LEADER]
    assert len(leaders) == 1
    assert (leaders[0] == 1) is not deaf
    cluster.propose(leaders[0], b"goes on")
    cluster.settle()
    assert b"goes on" in cluster.data(2)


def test_hung_disk_leader_steps_down() -> None:
    """hashicorp/raft#503: no sign of life from a leader whose disk writes nothing."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.propose(1, b"stuck")
    cluster.take(1)
    cluster.mail.clear()
    cluster.tick(1, 9)
    assert cluster.role(1) is Role.LEADER
    assert cluster.mail == []
    cluster.tick(1)
    assert leader.role is Role.FOLLOWER


def test_slow_disk_of_a_single_member_is_just_slow() -> None:
    cluster = Cluster(1)
    leader = cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.take(1)
    cluster.tick(1, 50)
    assert leader.role is Role.LEADER
    cluster.persist(1)
    cluster.settle()
    assert cluster.data(1) == [b"x"]


# -- transfer -------------------------------------------------------------------------------------


def test_transfer_succeeds_without_pre_vote_and_in_the_lease() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.propose(1, b"last")
    leader.transfer_leadership(2)
    with pytest.raises(ProposalDropped, match="transferred to 2"):
        leader.propose(b"refused")
    cluster.settle()
    assert cluster.nodes[2].role is Role.LEADER
    assert cluster.data(2) == [b"last"]


def test_transfer_aborts() -> None:
    """raft-rs#221: a transfer to a member that is gone ends after an election timeout."""
    cluster = Cluster()
    leader = cluster.elect(1)
    cluster.nodes.pop(3)
    leader.transfer_leadership(3)
    for _ in range(10):
        with pytest.raises(ProposalDropped):
            leader.propose(b"refused")
        cluster.tick(1)
        cluster.settle()
    leader.propose(b"accepted")
    cluster.settle()
    assert cluster.data(2) == [b"accepted"]
    for member in (1, 9):
        with pytest.raises(TransferRefused):
            leader.transfer_leadership(member)
    with pytest.raises(NotLeader):
        cluster.nodes[2].transfer_leadership(1)


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
