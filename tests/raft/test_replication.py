"""Flow control, loss and recovery of replication, and the shape of batches."""

from __future__ import annotations

import random

import pytest

from raftkv.raft import (
    InstallSnapshot,
    NotLeader,
    ProposalDropped,
    RaftConfig,
    RaftNode,
    Restored,
    Role,
)
from raftkv.raft.messages import AppendEntries, AppendResponse, Heartbeat
from tests.raft.cluster import Cluster


def appends(cluster: Cluster, to: int) -> list[AppendEntries]:
    return [m for m in cluster.mail if isinstance(m, AppendEntries) and m.to == to]


# -- the window -----------------------------------------------------------------------------------


def test_a_burst_of_proposals_is_one_message_each() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, *(b"%d" % n for n in range(50)))
    cluster.run(1)
    assert [len(m.entries) for m in appends(cluster, 2)] == [50]


def test_a_burst_of_requests_is_acknowledged_once() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    for n in range(5):
        leader.propose(b"%d" % n)
        cluster.run(1)
    cluster.deliver(2)
    effects = cluster.take(2)
    (answer,) = effects.messages_after_sync
    assert isinstance(answer, AppendResponse)
    assert answer.index == effects.entries[-1].index
    assert len(effects.entries) == 5


def test_window_by_messages() -> None:
    cluster = Cluster(max_inflight_messages=3, max_append_bytes=1)
    cluster.elect(1)
    cluster.propose(1, *(b"%d" % n for n in range(10)))
    cluster.run(1)
    assert len(appends(cluster, 2)) == 3
    cluster.settle()
    assert len(cluster.data(2)) == 10


def test_window_by_bytes() -> None:
    cluster = Cluster(max_inflight_bytes=1000, max_append_bytes=400)
    cluster.elect(1)
    cluster.propose(1, *(b"x" * 300 for _ in range(10)))
    cluster.run(1)
    assert len(appends(cluster, 2)) == 4
    cluster.settle()
    assert len(cluster.data(2)) == 10


def test_by_default_a_turn_sends_little_to_one_who_has_been_away() -> None:
    """All that it lacks in one turn would keep everybody else waiting for the leader."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(3)
    for _ in range(100):
        cluster.propose(1, bytes(200_000))
        cluster.settle()
    cluster.heal()
    cluster.tick(1)
    sent = 0
    while len(cluster.data(3)) < 100:
        cluster.run(1)
        size = sum(len(entry.data) for message in appends(cluster, 3) for entry in message.entries)
        assert size <= 3 << 20
        sent += size
        for id_ in (3, 1):
            cluster.deliver(id_)
            cluster.run(id_)
            cluster.tick(id_)
    assert sent >= 100 * 200_000


def test_full_window_still_tells_the_commit_index() -> None:
    cluster = Cluster(max_inflight_messages=1, max_append_bytes=1)
    leader = cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.run(1)
    cluster.deliver(3)
    cluster.run(3)
    cluster.mail = [m for m in cluster.mail if m.to == 1]
    cluster.deliver(1)
    cluster.run(1)
    news = appends(cluster, 2)
    assert [(m.entries, m.reply, m.commit) for m in news] == [([], False, leader.status().commit)]


@pytest.mark.parametrize("lost", ["requests", "answers"])
def test_lost_window_recovers(lost: str) -> None:
    """etcd PR#7042: the answer to a heartbeat frees a window whose messages were all lost."""
    cluster = Cluster(max_inflight_messages=2, max_append_bytes=1)
    cluster.elect(1)
    cluster.propose(1, *(b"%d" % n for n in range(6)))
    cluster.cut = {(1, 2) if lost == "requests" else (2, 1)}
    cluster.settle()
    cluster.heal()
    cluster.settle()
    assert len(cluster.data(2)) < 6
    cluster.tick(1)
    cluster.settle()
    assert len(cluster.data(2)) == 6


def test_lost_commit_news_is_repeated_by_the_heartbeat() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"x")
    cluster.run(1)
    for id_ in (2, 3):
        cluster.deliver(id_)
        cluster.run(id_)
    cluster.deliver(1)
    cluster.run(1)
    cluster.mail.clear()
    assert cluster.data(2) == []
    cluster.tick(1)
    cluster.settle()
    assert cluster.data(2) == [b"x"]


def test_probe_waits_for_its_answer() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    leader.report_unreachable(2)
    cluster.propose(1, b"a")
    cluster.run(1)
    assert appends(cluster, 2) == []
    assert leader.status().progress[2].state == "probe"
    cluster.tick(1)
    cluster.settle()
    assert leader.status().progress[2].state == "replicate"
    assert cluster.data(2) == [b"a"]


def test_an_idle_cluster_says_nothing() -> None:
    cluster = Cluster()
    cluster.elect(1)
    assert not any(node.has_effects() for node in cluster.nodes.values())
    cluster.tick(1)
    effects = cluster.take(1)
    assert [type(m) for m in effects.messages_before_sync] == [Heartbeat, Heartbeat]
    assert not effects.must_sync
    assert effects.hard_state is None


def test_heartbeat_commit_never_exceeds_what_was_acknowledged() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    match = leader.status().progress[3].match
    cluster.isolate(3)
    cluster.propose(1, b"x")
    cluster.settle()
    cluster.tick(1)
    cluster.run(1)
    beats = {m.to: m.commit for m in cluster.mail if isinstance(m, Heartbeat)}
    assert beats == {2: leader.status().commit, 3: match}


# -- snapshots ------------------------------------------------------------------------------------


def lagging() -> Cluster:
    """Member 3 needs a snapshot and is reachable again."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(3)
    for n in range(8):
        cluster.propose(1, b"%d" % n)
        cluster.settle()
    cluster.snapshot(1)
    cluster.heal()
    return cluster


def until_snapshot_sent(cluster: Cluster) -> None:
    cluster.tick(1)
    for _ in range(5):
        cluster.run(1)
        if any(isinstance(m, InstallSnapshot) for m in cluster.mail):
            return
        cluster.deliver(3)
        cluster.run(3)
        cluster.deliver(1)
    raise AssertionError("no snapshot was sent")


def test_failed_snapshot_is_sent_again() -> None:
    cluster = lagging()
    until_snapshot_sent(cluster)
    cluster.mail.clear()
    leader = cluster.nodes[1]
    assert leader.status().progress[3].state == "snapshot"
    leader.report_snapshot(3, ok=False)
    until_snapshot_sent(cluster)
    cluster.settle()
    assert cluster.nodes[3].status().commit == leader.status().commit


def test_forgotten_snapshot_is_sent_again() -> None:
    """etcd#10225: nobody reports and nobody answers; time decides."""
    cluster = lagging()
    until_snapshot_sent(cluster)
    cluster.mail.clear()
    for _ in range(120):
        cluster.tick(1)
        cluster.settle()
    assert cluster.nodes[3].status().commit == cluster.nodes[1].status().commit


def test_no_snapshot_for_a_member_that_is_silent() -> None:
    cluster = lagging()
    cluster.nodes.pop(3)
    for _ in range(40):
        cluster.tick(1)
        cluster.run(1)
        assert not [m for m in cluster.mail if isinstance(m, InstallSnapshot)]
        cluster.settle()


def test_compaction_beyond_what_a_silent_member_was_sent() -> None:
    """Still in replicate state, its window full, and the next entries for it are gone."""
    cluster = Cluster(max_inflight_messages=1)
    leader = cluster.elect(1)
    cluster.isolate(3)
    for n in range(5):
        cluster.propose(1, b"%d" % n)
        cluster.settle()
    cluster.snapshot(1)
    peer = cluster.core(1).progress[3]
    assert peer.state.value == "replicate"
    peer.active = False
    peer.inflights.clear()
    cluster.propose(1, b"more")
    cluster.settle()
    assert leader.status().progress[3].state == "probe"
    cluster.heal()
    cluster.tick(1)
    cluster.settle()
    assert cluster.nodes[3].status().commit == leader.status().commit


def test_catching_up_from_kept_entries_needs_no_snapshot() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.isolate(3)
    for n in range(8):
        cluster.propose(1, b"%d" % n)
        cluster.settle()
    cluster.snapshot(1, keep_behind=20)
    cluster.heal()
    cluster.tick(1)
    cluster.settle()
    assert cluster.disks[3].snapshot is None
    assert cluster.data(3) == cluster.data(1)


def test_snapshot_and_committed_never_share_a_batch() -> None:
    cluster = lagging()
    seen: list[int] = []

    def observer(id_: int, effects: object) -> None:
        snapshot = getattr(effects, "snapshot", None)
        if snapshot is not None:
            seen.append(id_)
            assert not getattr(effects, "committed", None)

    cluster.observer = observer
    cluster.tick(1)
    cluster.settle()
    assert seen == [3]


def test_no_campaign_before_the_snapshot_is_saved() -> None:
    cluster = lagging()
    until_snapshot_sent(cluster)
    cluster.deliver(3)
    node = cluster.nodes[3]
    node.campaign()
    assert node.role is Role.FOLLOWER
    cluster.take(3)
    node.campaign()
    assert cluster.role(3) is Role.FOLLOWER
    cluster.persist(3)
    node.campaign()
    assert cluster.role(3) is Role.PRE_CANDIDATE


def test_own_snapshot_overtaken_by_the_leaders() -> None:
    """The log was replaced while the shell still applied what came before: no snapshot then."""
    cluster = lagging()
    applied = cluster.nodes[3].status().applied
    until_snapshot_sent(cluster)
    cluster.deliver(3)
    assert cluster.nodes[3].snapshot_meta(applied) is None


def test_joining_member_gets_everything() -> None:
    from raftkv.raft import Change, ChangeKind

    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    cluster.snapshot(1)
    cluster.add(4)
    cluster.nodes[1].propose_membership(Change(ChangeKind.ADD_LEARNER, 4))
    cluster.tick(1)
    cluster.settle()
    assert cluster.nodes[4].configuration == cluster.nodes[1].configuration
    assert cluster.disks[4].snapshot is not None


# -- limits ---------------------------------------------------------------------------------------


def test_uncommitted_bytes_are_bounded() -> None:
    cluster = Cluster(max_uncommitted_bytes=100)
    leader = cluster.elect(1)
    leader.propose(b"x" * 500)  # one is always allowed
    with pytest.raises(ProposalDropped, match="500 bytes"):
        leader.propose(b"y")
    cluster.settle()
    leader.propose(b"y")


def test_committed_bytes_of_a_batch_are_bounded() -> None:
    cluster = Cluster(1, max_committed_bytes=100)
    leader = cluster.elect(1)
    for _ in range(5):
        leader.propose(b"x" * 60)
    cluster.take(1)
    cluster.persist(1)
    sizes = []
    while leader.has_effects():
        sizes.append(len(cluster.take(1).committed))
        cluster.persist(1)
    assert sizes == [1] * 5


def test_waiting_reads_are_bounded() -> None:
    cluster = Cluster(max_pending_reads=2)
    leader = cluster.elect(1)
    leader.read_index(1)
    leader.read_index(2)
    with pytest.raises(ProposalDropped, match="2 reads"):
        leader.read_index(3)
    cluster.settle()
    leader.read_index(4)


def test_reads_of_one_batch_share_a_round() -> None:
    cluster = Cluster()
    leader = cluster.elect(1)
    for read_id in range(1, 100):
        leader.read_index(read_id)
    assert len(cluster.take(1).messages_before_sync) == 2
    cluster.persist(1)
    cluster.settle()
    assert len(cluster.reads[1]) == 99


# -- start ----------------------------------------------------------------------------------------


def test_campaign_at_start() -> None:
    """A new cluster need not wait for an election timeout, whichever member is up first."""
    cluster = Cluster()
    config = RaftConfig(id=1, campaign_at_start=True)
    cluster.nodes[1] = RaftNode(config, Restored(), (1, 2, 3), random.Random(1))
    cluster.run(1)
    assert cluster.role(1) is Role.PRE_CANDIDATE
    cluster.mail.clear()  # the others are not up yet
    cluster.tick(1, 2)
    cluster.settle()
    assert cluster.role(1) is Role.LEADER


def test_all_started_again_need_not_wait_for_an_election_timeout() -> None:
    cluster = Cluster()
    cluster.elect(1)
    cluster.mail.clear()
    for id_ in (1, 2, 3):
        cluster.start(id_)
    for _ in range(RaftConfig(id=1).election_ticks):
        for id_ in (1, 2, 3):
            cluster.tick(id_)
        cluster.settle()
    assert [cluster.role(id_) for id_ in (1, 2, 3)].count(Role.LEADER) == 1


def test_one_started_again_disturbs_nobody() -> None:
    """It asks soon, and again; as the others hear a leader they refuse, and no term is lost."""
    cluster = Cluster()
    leader = cluster.elect(1)
    term = leader.term
    cluster.start(3)
    cluster.cut = {(1, 3)}  # so it can't hear the leader
    for _ in range(20):
        for id_ in (1, 2, 3):
            cluster.tick(id_)
        cluster.settle()
    assert cluster.role(3) is Role.PRE_CANDIDATE
    assert (leader.role, leader.term) == (Role.LEADER, term)
    cluster.heal()
    cluster.tick(1)
    cluster.settle()
    assert cluster.role(3) is Role.FOLLOWER


def test_bootstrap_needs_itself_among_the_voters() -> None:
    with pytest.raises(ValueError, match="not among the voters"):
        RaftNode(RaftConfig(id=4), Restored(), (1, 2, 3), random.Random(1))


def test_bootstrap_only_on_an_empty_log() -> None:
    cluster = Cluster()
    cluster.elect(1)
    restored = cluster.disks[2].restored()
    node = RaftNode(RaftConfig(id=2), restored, (2, 7, 8), random.Random(1))
    assert node.configuration.voters == (1, 2, 3)


def test_joining_member_waits() -> None:
    node = RaftNode(RaftConfig(id=9), Restored(), (), random.Random(1))
    for _ in range(100):
        node.tick()
    assert node.role is Role.FOLLOWER
    assert not node.has_effects()
    with pytest.raises(NotLeader):
        node.propose(b"x")


def test_single_member_reads_and_writes_alone() -> None:
    cluster = Cluster(1)
    leader = cluster.elect(1)
    leader.propose(b"x")
    leader.read_index(1)
    cluster.settle()
    assert cluster.data(1) == [b"x"]
    assert len(cluster.reads[1]) == 1


def test_restart_replays_what_was_committed() -> None:
    cluster = Cluster(1)
    cluster.elect(1)
    cluster.propose(1, b"a", b"b")
    cluster.settle()
    cluster.snapshot(1, keep_behind=1)
    cluster.propose(1, b"c")
    cluster.settle()
    cluster.start(1)
    cluster.elect(1)
    assert cluster.data(1) == [b"c"]
    assert cluster.nodes[1].status().first_index == cluster.disks[1].entries[1].index


def test_misuse_is_noticed() -> None:
    cluster = Cluster(1)
    leader = cluster.elect(1)
    leader.propose(b"x")
    effects = leader.take_effects()
    with pytest.raises(AssertionError, match="not persisted yet"):
        leader.take_effects()
    leader.persisted(effects)
    with pytest.raises(AssertionError, match="not the outstanding batch"):
        leader.persisted(effects)
    with pytest.raises(AssertionError):
        leader.propose(b"")
    with pytest.raises(AssertionError, match="handed out"):
        leader.applied_to(99)
