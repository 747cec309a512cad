"""Clever parts of the core beside twins too simple to be wrong; the log's are in test_log.py, those
of quorums and windows in test_parts.py."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.raft import Configuration, Entry, HardState, RaftConfig, RaftNode, Restored, Role
from raftkv.raft import leader as leader_role
from raftkv.raft.membership import History, encode
from raftkv.raft.messages import MEMBERSHIP, NORMAL
from raftkv.raft.progress import Inflights, Progress, State
from raftkv.raft.reads import Reads

TERMS = st.lists(st.integers(1, 4), max_size=8).map(sorted)


@settings(max_examples=400)
@given(
    st.integers(1, 7),
    TERMS,
    st.integers(0, 8),
    st.integers(0, 4),
    st.lists(st.integers(0, 12), min_size=7, max_size=7),
)
def test_commit_index_twin(
    size: int, terms: list[int], committed: int, own: int, matches: list[int]
) -> None:
    """Paper figure 2, the last rule for leaders, word by word: there is an N above the commit index
    that a majority has reached, and whose entry is of the current term."""
    voters = tuple(range(1, size + 1))
    membership = Entry(1, 1, MEMBERSHIP, encode(Configuration(voters)))
    entries = [membership, *(Entry(i, term, NORMAL, b"x") for i, term in enumerate(terms, 2))]
    commit = min(committed, len(entries))
    state = HardState(5, 1, commit)
    node = RaftNode(RaftConfig(id=1), Restored(state, None, entries, 0), (), random.Random(1))
    core = node._core
    core.role = Role.CANDIDATE
    leader_role.become_leader(core)
    for number in range(own):
        leader_role.propose(core, NORMAL, b"%d" % number)
    log = core.log
    reached = [min(match, log.last_index) for match in matches[:size]]
    log.stable = reached[0]
    for voter, match in zip(voters[1:], reached[1:], strict=True):
        core.progress[voter].match = match
        core.progress[voter].next = match + 1
    leader_role._advance_commit(core)
    expected = [commit] + [
        n
        for n in range(commit + 1, log.last_index + 1)
        if 2 * sum(match >= n for match in reached) > size and log.term_at(n) == core.term
    ]
    assert log.commit == max(expected)


answers = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("accept"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("reject"), st.integers(0, 20), st.integers(0, 20)),
        st.tuples(st.just("break"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=400)
@given(answers, st.integers(1, 20))
def test_progress_twin(steps: list[tuple[str, int, int]], last: int) -> None:
    """The follower's log matches the leader's up to some place that only grows; whatever answers
    come, late, twice or out of order, `match` is the highest acknowledged and `next` is behind it,
    and a follower that is asked again and again is found."""
    peer = Progress(last + 1, Inflights(4, 1000))
    acknowledged = 0
    for what, index, hint in steps:
        before = peer.next
        if what == "send" and peer.state is State.REPLICATE and not peer.inflights.full:
            until = min(last, peer.next + index - 1)
            if until >= peer.next:
                peer.sent(until, 1)
        elif what == "accept" and index <= last:
            news = peer.accepted(index)
            assert news == (index > acknowledged)
            acknowledged = max(acknowledged, index)
            peer.inflights.free_to(index)
            if peer.state is State.PROBE:
                peer.become_replicate()
        elif what == "reject":
            stale = index <= acknowledged if peer.state is State.REPLICATE else index != before - 1
            assert peer.rejected(index, min(hint, index)) == (not stale)
            if stale:
                assert peer.next == before
        elif what == "break" and peer.state is State.REPLICATE:
            peer.become_probe()
        assert peer.match == acknowledged
        assert 0 <= peer.match < peer.next <= last + 1
    for _ in range(2 * last + 2):  # a follower with an empty log, asked until it is found
        if peer.state is State.REPLICATE:
            peer.become_probe()
        if peer.next - 1 == acknowledged:
            break
        peer.rejected(peer.next - 1, acknowledged)
    assert peer.next == acknowledged + 1


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(0, 9)),
            st.tuples(st.just("round"), st.just(0)),
            st.tuples(st.just("confirm"), st.integers(0, 9)),
            st.tuples(st.just("lose"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_reads_twin(steps: list[tuple[str, int]]) -> None:
    """Each read remembers the number of the first round that began after it came; it is confirmed
    by that round or a later one, and otherwise fails with the leadership."""
    reads = Reads()
    asked: dict[int, tuple[int, int]] = {}  # read id -> commit index at its arrival, round
    ready: list[tuple[int, int]] = []
    failed: list[int] = []
    rounds = 0
    for number, (what, argument) in enumerate(steps, 1):
        if what == "ask":
            reads.add(number, argument)
            asked[number] = (argument, rounds + 1)
        elif what == "round" and reads.wants_round:
            rounds += 1
            assert reads.begin_round() == rounds
        elif what == "confirm" and argument <= rounds:
            reads.confirm(argument)
            done = [read for read, (_, first) in asked.items() if first <= argument]
            ready += [(read, asked.pop(read)[0]) for read in done]
        elif what == "lose":
            reads.fail_all()
            failed += asked
            asked.clear()
        assert reads.ready == ready
        assert sorted(reads.failed) == failed
        assert reads.pending == len(asked)


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("change"), st.integers(1, 9)),
            st.tuples(st.just("entry"), st.just(0)),
            st.tuples(st.just("truncate"), st.integers(1, 40)),
            st.tuples(st.just("compact"), st.integers(1, 40)),
        ),
        max_size=40,
    )
)
def test_membership_history_twin(steps: list[tuple[str, int]]) -> None:
    """The configuration of a place is that of the last change at or before it: searched from the
    end in a list of all entries."""
    base = Configuration((1,))
    history = History(0, base)
    log: list[Configuration | None] = []  # entry i + 1
    compacted = 0

    def at(index: int) -> Configuration:
        return next((c for c in reversed(log[:index]) if c is not None), base)

    for what, argument in steps:
        if what == "change":
            configuration = Configuration((1, 1 + argument))
            log.append(configuration)
            entry = Entry(len(log), 1, MEMBERSHIP, encode(configuration))
            assert history.append([entry])
        elif what == "entry":
            log.append(None)
            assert not history.append([Entry(len(log), 1, NORMAL, b"x")])
        elif what == "truncate" and compacted < argument <= len(log):
            gone = any(log[argument - 1 :])
            del log[argument - 1 :]
            assert history.truncate_from(argument) == gone
        elif what == "compact" and compacted <= argument <= len(log):
            compacted = argument
            history.compact(argument)
        assert history.current == at(len(log))
        for index in range(compacted, len(log) + 1):
            assert history.at(index) == at(index)
