"""Bugs that other implementations had, each as a test under the name of its story."""

from __future__ import annotations

import pytest

from raftkv.raft import (
    Change,
    ChangeKind,
    NotLeader,
    ProposalDropped,
    Role,
    TransferRefused,
)
from raftkv.raft.messages import (
    HeartbeatResponse,
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


@pytest.mark.parametrize("guarded", [True, False])
def test_learner_of_a_higher_term_is_heard(guarded: bool) -> None:
    """Swarm seed 5478: it may not campaign, so its answer alone can tell the leader the term."""
    cluster = Cluster(2, pre_vote=guarded, check_quorum=guarded)
    leader = cluster.elect(1)
    leader.propose_membership(Change(ChangeKind.DEMOTE, 2))
    cluster.settle()
    cluster.core(2).reset(9)
    for _ in range(40):
        cluster.tick(1)
        cluster.settle()
    assert cluster.role(1) is Role.LEADER
    assert [cluster.nodes[i].term for i in (1, 2)] == [10, 10]


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
