"""The sentences of the Raft paper and thesis that we rely on, one test each.

Sections are those of "In Search of an Understandable Consensus Algorithm (Extended Version)"
(paper) and of "Consensus: Bridging Theory and Practice" (thesis).
"""

from __future__ import annotations

import random

import pytest

from raftkv.raft import Entry, HardState, RaftConfig, RaftNode, Restored, Role
from raftkv.raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from tests.raft.cluster import Cluster


def node_with(*terms: int, term: int = 0, commit: int = 1, **options: object) -> RaftNode:
    """Member 1 of (1, 2, 3) with a log of these terms, its first entry the membership."""
    log = Cluster(3).core(1).log.entries
    entries = [log[0], *(Entry(i, t, 0, b"%d" % i) for i, t in enumerate(terms[1:], 2))]
    hard_state = HardState(term or terms[-1], 0, commit)
    config = RaftConfig(id=1, **options)  # type: ignore[arg-type]  # forwarded as they are
    return RaftNode(config, Restored(hard_state, None, entries), (), random.Random(1))


def outgoing(node: RaftNode) -> list[object]:
    found: list[object] = []
    while node.has_effects():
        effects = node.take_effects()
        node.persisted(effects)
        found += effects.messages_before_sync + effects.messages_after_sync
    return found


# -- 5.1 terms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_higher_term_makes_a_follower(role: Role) -> None:
    """5.1: If a candidate or leader discovers that its term is out of date, it immediately
    reverts to follower state."""
    cluster = Cluster(pre_vote=False)
    node = cluster.nodes[1]
    if role is not Role.FOLLOWER:
        node.campaign()
    if role is Role.LEADER:
        cluster.settle()
    assert node.role is role
    node.step(Heartbeat(1, 2, 99, 0, 0))
    assert (node.role, node.term, node.leader) == (Role.FOLLOWER, 99, 2)


def test_stale_term_is_rejected() -> None:
    """5.1: If a server receives a request with a stale term number, it rejects the request."""
    node = node_with(1, 1, term=5)
    node.step(AppendEntries(1, 2, 4, 2, 1, 0, True, []))
    node.step(RequestVote(1, 2, 4, 99, 4, False))
    answers = outgoing(node)
    assert answers == [AppendResponse(2, 1, 5, 0, True, 0, 0), VoteResponse(2, 1, 5, False)]
    assert node.leader == 0


# -- 5.2 leader election --------------------------------------------------------------------------


def test_starts_as_follower() -> None:
    """5.2: When servers start up, they begin as followers."""
    assert Cluster().nodes[1].role is Role.FOLLOWER


def test_follower_stays_while_it_hears_the_leader() -> None:
    """5.2: A server remains in follower state as long as it receives valid RPCs."""
    cluster = Cluster()
    cluster.elect(1)
    for _ in range(50):
        for id_ in (1, 2, 3):
            cluster.tick(id_)
        cluster.settle()
    assert [cluster.role(i) for i in (1, 2, 3)] == [Role.LEADER, Role.FOLLOWER, Role.FOLLOWER]


def test_candidate_increments_term_and_votes_for_itself() -> None:
    """5.2: To begin an election, a follower increments its current term ... votes for itself and
    issues RequestVote RPCs in parallel to each of the other servers."""
    node = node_with(1, 1, 2, pre_vote=False)
    for _ in range(20):
        node.tick()
    assert (node.role, node.term, node.status().vote) == (Role.CANDIDATE, 3, 1)
    assert outgoing(node) == [
        RequestVote(2, 1, 3, 3, 2, False),
        RequestVote(3, 1, 3, 3, 2, False),
    ]


def test_own_vote_counts_only_when_durable() -> None:
    """5.2 and figure 2, persistent state: updated on stable storage before responding."""
    cluster = Cluster(1)
    cluster.run(1)
    node = cluster.nodes[1]
    node.campaign()
    effects = cluster.take(1)
    assert effects.hard_state == HardState(2, 1, 1)
    assert effects.must_sync
    assert cluster.role(1) is Role.CANDIDATE
    cluster.persist(1)
    assert cluster.role(1) is Role.LEADER


@pytest.mark.parametrize(
    ("size", "granted", "refused", "role"),
    [
        (3, 1, 0, Role.LEADER),
        (3, 0, 1, Role.CANDIDATE),
        (3, 0, 2, Role.FOLLOWER),
        (5, 1, 2, Role.CANDIDATE),
        (5, 2, 2, Role.LEADER),
        (5, 1, 3, Role.FOLLOWER),
        (4, 1, 1, Role.CANDIDATE),
        (4, 2, 1, Role.LEADER),
        (4, 1, 2, Role.FOLLOWER),
    ],
)
def test_majority_wins(size: int, granted: int, refused: int, role: Role) -> None:
    """5.2: A candidate wins if it receives votes from a majority of the servers in the full
    cluster for the same term."""
    cluster = Cluster(size, pre_vote=False)
    cluster.nodes[1].campaign()
    cluster.run(1)
    term = cluster.nodes[1].term
    for voter in range(2, 2 + granted + refused):
        cluster.nodes[1].step(VoteResponse(1, voter, term, voter < 2 + granted))
    assert cluster.role(1) is role


def test_repeated_vote_counts_once() -> None:
    cluster = Cluster(5, pre_vote=False)
    cluster.nodes[1].campaign()
    cluster.run(1)
    for _ in range(3):
        cluster.nodes[1].step(VoteResponse(1, 2, cluster.nodes[1].term, True))
    assert cluster.role(1) is Role.CANDIDATE


def test_one_vote_a_term() -> None:
    """5.2: Each server will vote for at most one candidate in a given term, on a
    first-come-first-served basis."""
    node = node_with(1)
    node.step(RequestVote(1, 2, 2, 9, 1, False))
    node.step(RequestVote(1, 3, 2, 9, 1, False))
    assert outgoing(node) == [VoteResponse(2, 1, 2, True), VoteResponse(3, 1, 2, False)]


def test_candidate_yields_to_the_leader_of_its_term() -> None:
    """5.2: If the leader's term is at least as large as the candidate's, then the candidate
    recognizes the leader as legitimate and returns to follower state."""
    node = node_with(1, pre_vote=False)
    node.campaign()
    node.step(AppendEntries(1, 3, node.term, 1, 1, 1, True, []))
    assert (node.role, node.leader) == (Role.FOLLOWER, 3)


def test_election_timeouts_are_spread() -> None:
    """5.2: Raft uses randomized election timeouts to ensure that split votes are rare."""
    seen = set()
    core = Cluster().core(1)
    for _ in range(500):
        core.draw_election_timeout()
        seen.add(core.election_timeout)
    assert seen == set(range(10, 20))


def test_split_vote_is_resolved() -> None:
    cluster = Cluster(4, pre_vote=False)
    for id_ in (1, 2):
        cluster.nodes[id_].campaign()
        cluster.run(id_)
    for to, sender in ((3, 1), (4, 2)):
        for message in [m for m in cluster.mail if (m.to, m.sender) == (to, sender)]:
            cluster.nodes[to].step(message)
    cluster.mail.clear()
    cluster.settle()
    assert Role.LEADER not in {cluster.role(i) for i in range(1, 5)}
    for _ in range(60):
        for id_ in range(1, 5):
            cluster.tick(id_)
        cluster.settle()
    assert [cluster.role(i) for i in range(1, 5)].count(Role.LEADER) == 1


# -- 5.3 log replication --------------------------------------------------------------------------


def test_leader_appends_then_sends_in_parallel() -> None:
    """5.3: The leader appends the command to its log as a new entry, then issues AppendEntries
    RPCs in parallel (thesis 10.2.1: also in parallel with its own disk)."""
    cluster = Cluster()
    leader = cluster.elect(1)
    index, term = leader.propose(b"x")
    effects = cluster.take(1)
    entry = Entry(index, term, 0, b"x")
    assert effects.entries == [entry]
    sent = effects.messages_before_sync
    assert [(m.to, m.entries) for m in sent if isinstance(m, AppendEntries)] == [
        (2, [entry]),
        (3, [entry]),
    ]


def test_committed_once_on_a_majority() -> None:
    """5.3: A log entry is committed once the leader ... has replicated it on a majority."""
    cluster = Cluster(5)
    leader = cluster.elect(1)
    index, _ = leader.propose(b"x")
    cluster.run(1)
    for follower in (2, 3):
        assert leader.status().commit < index
        cluster.deliver(follower)
        cluster.run(follower)
        cluster.deliver(1)
    assert leader.status().commit == index


def test_leader_counts_itself_only_after_its_sync() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    index, _ = leader.propose(b"x")
    cluster.take(1)
    cluster.deliver(2)
    cluster.run(2)
    cluster.deliver(1)
    assert leader.status().commit < index
    cluster.persist(1)
    assert leader.status().commit == index


def test_follower_learns_the_commit_index() -> None:
    """5.3: Once a follower learns that a log entry is committed, it applies the entry to its
    local state machine (in log order)."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.propose(1, b"a", b"b", b"c")
    cluster.settle()
    assert cluster.data(1) == cluster.data(2) == cluster.data(3) == [b"a", b"b", b"c"]


def test_commit_is_bounded_by_the_last_new_entry() -> None:
    """Figure 2, AppendEntries receiver, rule 5: min(leaderCommit, index of last new entry)."""
    node = node_with(1, 1, 1, term=2)
    node.step(AppendEntries(1, 2, 2, 2, 1, 3, True, []))
    assert node.status().commit == 2, "entry 3 may differ from the leader's"


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "rejected"),
    [(3, 2, False), (3, 1, True), (4, 2, True), (2, 1, False), (1, 1, False)],
)
def test_consistency_check(prev_index: int, prev_term: int, rejected: bool) -> None:
    """5.3: If the follower does not find an entry in its log with the same index and term, then
    it refuses the new entries."""
    node = node_with(1, 1, 2)
    node.step(AppendEntries(1, 2, 2, prev_index, prev_term, 0, True, []))
    (answer,) = outgoing(node)
    assert isinstance(answer, AppendResponse)
    assert (answer.rejected, answer.index) == (rejected, prev_index)


# Figure 7, with the membership in front: terms of the logs at the time the leader comes to power.
LEADER = (1, 1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIGURE_7 = {
    "a": (1, 1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 1, 4),
    "c": (1, 1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("name", FIGURE_7)
def test_figure_7(name: str) -> None:
    """5.3: The leader finds the latest log entry where the two logs agree, deletes any entries in
    the follower's log after that point, and sends all of its own after it."""
    cluster = Cluster(3)
    for id_, terms in ((1, LEADER), (2, FIGURE_7[name]), (3, LEADER[:1])):
        first = cluster.core(1).log.entries[0]
        disk = cluster.disks[id_]
        disk.entries = [first, *(Entry(i, t, 0, b"%d" % t) for i, t in enumerate(terms[1:], 2))]
        disk.hard_state = HardState(7, 0, 1)
    for id_ in (1, 2, 3):
        cluster.start(id_)
    cluster.elect(1)
    assert cluster.terms(2) == cluster.terms(1) == [*LEADER, 8]
    assert cluster.data(2) == cluster.data(1)


def test_whole_terms_are_skipped() -> None:
    """5.3: When rejecting, the follower can include the term of the conflicting entry ... one
    AppendEntries RPC will be required for each term with conflicting entries."""
    cluster = Cluster(3)
    first = cluster.core(1).log.entries[0]
    for id_, terms in ((1, [2] * 100), (2, [3] * 200), (3, [2] * 100)):
        disk = cluster.disks[id_]
        disk.entries = [first, *(Entry(i, t, 0, b"x") for i, t in enumerate(terms, 2))]
        disk.hard_state = HardState(3, 0, 1)
        cluster.start(id_)
    cluster.nodes[2].campaign()  # 2 has the later term and wins
    rounds: list[AppendResponse] = []
    cluster.observer = lambda _, effects: rounds.extend(
        m for m in effects.messages_after_sync if isinstance(m, AppendResponse) and m.rejected
    )
    cluster.settle()
    assert cluster.terms(1) == cluster.terms(2)
    assert len(rounds) == 2, "one rejection from each follower"


def test_delayed_shorter_request_erases_nothing() -> None:
    """Figure 2, AppendEntries receiver, rule 3: only an entry that *conflicts* is deleted."""
    node = node_with(1)
    long = [Entry(i, 1, 0, b"x") for i in (2, 3, 4)]
    node.step(AppendEntries(1, 2, 1, 1, 1, 1, True, long))
    node.step(AppendEntries(1, 2, 1, 1, 1, 1, True, long[:1]))
    assert node.status().last_index == 4


# -- 5.4 safety -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 2, True), (2, 2, False), (9, 1, False), (1, 3, True), (4, 2, True)],
)
def test_election_restriction(last_index: int, last_term: int, granted: bool) -> None:
    """5.4.1: The voter denies its vote if its own log is more up-to-date than the candidate's."""
    node = node_with(1, 1, 2)
    node.step(RequestVote(1, 2, 9, last_index, last_term, False))
    node.step(RequestPreVote(1, 3, 10, last_index, last_term))
    real, pre = outgoing(node)
    assert isinstance(real, VoteResponse)
    assert real.granted is granted
    assert pre.granted is granted  # type: ignore[attr-defined]  # a PreVoteResponse


def test_entries_of_older_terms_commit_only_along() -> None:
    """5.4.2, figure 8: Raft never commits log entries from previous terms by counting replicas."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(1)
    index, _ = leader.propose(b"old")
    cluster.settle()
    cluster.heal()
    cluster.start(1)
    for id_ in (2, 3):
        cluster.core(id_).election_elapsed = 99
    cluster.nodes[1].campaign()
    while cluster.role(1) is not Role.LEADER:
        for id_ in (1, 2, 3):
            cluster.run(id_)
            cluster.deliver(id_)
    leader, term = cluster.nodes[1], cluster.nodes[1].term
    cluster.run(1)
    leader.step(AppendResponse(1, 2, term, index, False, 0, 0))
    leader.step(AppendResponse(1, 3, term, index, False, 0, 0))
    assert leader.status().commit < index, "on all three members, and yet not committed"
    leader.step(AppendResponse(1, 2, term, index + 1, False, 0, 0))
    assert leader.status().commit == index + 1


def test_new_leader_appends_a_no_op() -> None:
    """8: Raft handles this by having each leader commit a blank no-op entry at the start."""
    cluster = Cluster()
    cluster.elect(1)
    last = cluster.core(1).log.entries[-1]
    assert (last.term, last.data) == (cluster.nodes[1].term, b"")
    assert cluster.nodes[1].status().commit == last.index
