"""Quorums, progress, inflights, membership, reads, messages: each part by itself."""

from __future__ import annotations

from itertools import combinations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft import (
    Change,
    ChangeKind,
    ChangeRefused,
    Configuration,
    Entry,
    Message,
    MessageError,
    RaftConfig,
    Snapshot,
    SnapshotMeta,
    from_wire,
    messages,
    to_wire,
)
from raftkv.raft.membership import History, changed, decode, encode
from raftkv.raft.progress import Inflights, Progress, State
from raftkv.raft.quorum import Ballot, count_votes, has_quorum, majority, majority_index
from raftkv.raft.reads import Reads

# -- quorum ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7))
def test_majority_index_twin(values: list[int]) -> None:
    """The dumb twin: the highest value that more than half have reached."""
    reached = [v for v in values if 2 * sum(1 for w in values if w >= v) > len(values)]
    assert majority_index(values) == max(reached)


@given(st.integers(1, 6))
def test_any_two_majorities_overlap(size: int) -> None:
    groups = [set(group) for group in combinations(range(size), majority(size))]
    assert all(a & b for a in groups for b in groups)
    if majority(size) > 1:
        smaller = [set(group) for group in combinations(range(size), size - majority(size))]
        assert all(len(group) < majority(size) for group in smaller)


@given(
    st.sets(st.integers(1, 9), min_size=1, max_size=7),
    st.dictionaries(st.integers(1, 9), st.booleans()),
)
def test_count_votes_twin(voters: set[int], votes: dict[int, bool]) -> None:
    """Won if it would be won with all open votes refused; lost if not even with all granted."""
    half = len(voters) / 2
    yes = len([v for v in voters if votes.get(v)])
    still_open = len([v for v in voters if v not in votes])
    expected = Ballot.WON if yes > half else Ballot.OPEN
    if yes + still_open <= half:
        expected = Ballot.LOST
    assert count_votes(sorted(voters), votes) is expected
    assert has_quorum(sorted(voters), [v for v in votes if votes[v]]) == (yes > half)


# -- progress -------------------------------------------------------------------------------------


def progress(state: State = State.REPLICATE, match: int = 5, next_index: int = 8) -> Progress:
    peer = Progress(match + 1, Inflights(4, 1000))
    peer.match = match
    if state is State.REPLICATE:
        peer.become_replicate()
    elif state is State.SNAPSHOT:
        peer.become_snapshot(match + 10)
    peer.next = next_index
    return peer


def test_inflights_are_limited_by_count_and_by_bytes() -> None:
    window = Inflights(3, 100)
    window.add(1, 10)
    window.add(2, 10)
    full = [window.full]
    window.add(3, 10)
    full.append(window.full)
    window.free_to(2)
    full.append(window.full)
    assert len(window) == 1
    window.add(4, 90)
    full.append(window.full)  # 100 bytes are under way
    window.free_to(9)
    full.append(window.full)
    assert full == [False, True, False, True, False]
    assert len(window) == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 40)), max_size=20), st.integers(0, 50))
def test_inflights_twin(messages_: list[tuple[int, int]], freed: int) -> None:
    window, twin = Inflights(5, 60), []
    for last, size in sorted(dict(messages_).items()):
        if not window.full:
            window.add(last, size)
            twin.append((last, size))
    window.free_to(freed)
    twin = [(last, size) for last, size in twin if last > freed]
    assert len(window) == len(twin)
    assert window.full == (len(twin) >= 5 or sum(size for _, size in twin) >= 60)


@pytest.mark.parametrize(
    ("state", "index", "may_match", "moved", "next_index"),
    [
        (State.REPLICATE, 5, 4, False, 8),  # stale: up to 5 is known to match
        (State.REPLICATE, 7, 3, True, 6),  # back to what is known to match
        (State.PROBE, 7, 6, True, 7),
        (State.PROBE, 7, 2, True, 6),  # never at or below match
        (State.PROBE, 6, 4, False, 8),  # stale: another probe was sent since
        (State.SNAPSHOT, 7, 3, False, 8),
    ],
)
def test_rejections(state: State, index: int, may_match: int, moved: bool, next_index: int) -> None:
    """Reordered or duplicated rejections must not move next back."""
    peer = progress(state)
    assert peer.rejected(index, may_match) is moved
    assert peer.next == next_index
    assert peer.match < peer.next


def test_probe_after_snapshot_begins_behind_it() -> None:
    peer = progress(State.SNAPSHOT, match=5)
    assert peer.pending_snapshot == 15
    peer.become_probe()
    assert peer.next == 16
    peer = progress(State.SNAPSHOT, match=5)
    peer.pending_snapshot = 0  # it failed
    peer.become_probe()
    assert peer.next == 6


def test_probe_sends_one_message_and_waits() -> None:
    peer = Progress(3, Inflights(4, 1000))
    peer.sent(5, 10)
    assert peer.probe_sent
    assert peer.next == 3
    peer.become_replicate()
    peer.sent(5, 10)
    assert peer.next == 6
    assert len(peer.inflights) == 1


# -- membership -----------------------------------------------------------------------------------

OLD = Configuration((1, 2, 3), (4,))


@pytest.mark.parametrize(
    ("kind", "member", "expected"),
    [
        (ChangeKind.ADD_LEARNER, 5, Configuration((1, 2, 3), (4, 5))),
        (ChangeKind.ADD_VOTER, 5, Configuration((1, 2, 3, 5), (4,))),
        (ChangeKind.ADD_VOTER, 4, Configuration((1, 2, 3, 4), ())),
        (ChangeKind.REMOVE, 4, Configuration((1, 2, 3), ())),
        (ChangeKind.REMOVE, 2, Configuration((1, 3), (4,))),
        (ChangeKind.DEMOTE, 2, Configuration((1, 3), (2, 4))),
    ],
)
def test_changes(kind: ChangeKind, member: int, expected: Configuration) -> None:
    assert changed(OLD, Change(kind, member)) == expected
    assert decode(encode(expected, b"address")) == (expected, b"address")


@pytest.mark.parametrize(
    ("kind", "member", "reason"),
    [
        (ChangeKind.ADD_LEARNER, 4, "a member already"),
        (ChangeKind.ADD_LEARNER, 1, "a member already"),
        (ChangeKind.ADD_VOTER, 1, "a voter already"),
        (ChangeKind.REMOVE, 9, "not a member"),
        (ChangeKind.DEMOTE, 4, "not a voter"),
        (ChangeKind.ADD_LEARNER, 0, "must be positive"),
    ],
)
def test_refused_changes(kind: ChangeKind, member: int, reason: str) -> None:
    with pytest.raises(ChangeRefused, match=reason):
        changed(OLD, Change(kind, member))


def test_last_voter_stays() -> None:
    for kind in (ChangeKind.REMOVE, ChangeKind.DEMOTE):
        with pytest.raises(ChangeRefused, match="last voter"):
            changed(Configuration((1,), (2,)), Change(kind, 1))


def test_history_goes_back_with_the_log() -> None:
    history = History(0, Configuration((1,)))
    one, two = Configuration((1, 2)), Configuration((1, 2, 3))
    assert history.append([Entry(3, 1, 1, encode(one)), Entry(4, 1, 0, b"x")])
    assert history.append([Entry(7, 1, 1, encode(two))])
    assert [history.at(i) for i in (2, 3, 6, 7)] == [Configuration((1,)), one, one, two]
    assert history.truncate_from(7)
    assert history.current == one
    assert not history.truncate_from(4)
    history.compact(3)
    assert history.at(3) == one
    with pytest.raises(AssertionError):
        history.at(2)


# -- reads ----------------------------------------------------------------------------------------


def test_reads_belong_to_the_round_after_their_arrival() -> None:
    reads = Reads()
    reads.add(1, 10)
    reads.add(2, 11)
    assert reads.begin_round() == 1
    reads.add(3, 12)
    reads.confirm(1)
    assert reads.ready == [(1, 10), (2, 11)]
    assert reads.begin_round() == 2
    reads.confirm(1)
    assert len(reads.ready) == 2, "answers to the first round say nothing about the second"
    reads.confirm(2)
    assert reads.ready[2:] == [(3, 12)]
    assert reads.pending == 0


def test_lost_leadership_fails_what_is_not_confirmed() -> None:
    reads = Reads()
    reads.add(1, 10)
    reads.begin_round()
    reads.confirm(1)
    reads.add(2, 10)
    reads.begin_round()
    reads.add(3, 10)
    reads.wait(4)
    reads.fail_all()
    assert reads.ready == [(1, 10)]
    assert sorted(reads.failed) == [2, 3, 4]
    assert reads.pending == 0


# -- messages -------------------------------------------------------------------------------------

EXAMPLES: list[Message] = [
    messages.RequestPreVote(1, 2, 3, 4, 5),
    messages.PreVoteResponse(1, 2, 3, True),
    messages.RequestVote(1, 2, 3, 4, 5, False),
    messages.VoteResponse(1, 2, 3, False),
    messages.AppendEntries(1, 2, 3, 4, 5, 6, True, [Entry(5, 3, 0, b"a"), Entry(6, 3, 1, b"")]),
    messages.AppendEntries(1, 2, 3, 4, 5, 6, False, []),
    messages.AppendResponse(1, 2, 3, 4, True, 5, 6),
    messages.Heartbeat(1, 2, 3, 4, 5),
    messages.HeartbeatResponse(1, 2, 3, 4),
    messages.InstallSnapshot(1, 2, 3, Snapshot(SnapshotMeta(4, 3, (1, 2), (3,)), b"data")),
    messages.TimeoutNow(1, 2, 3),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_wire_round_trip(message: Message) -> None:
    fields = msgpack.unpackb(msgpack.packb(to_wire(message)))
    back = from_wire(fields)
    assert type(back) is type(message)
    assert back == message


def test_every_message_has_an_example() -> None:
    assert {type(m) for m in EXAMPLES} == set(messages._CODES)
    assert set(messages._SHAPES) == set(messages._CODES.values())


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_malformed_messages_are_refused(message: Message) -> None:
    fields = msgpack.unpackb(msgpack.packb(to_wire(message)))
    for cut in range(len(fields)):
        with pytest.raises(MessageError):
            from_wire(fields[:cut])
        with pytest.raises(MessageError):
            from_wire([*fields[:cut], "no", *fields[cut + 1 :]])
    with pytest.raises(MessageError):
        from_wire([99, *fields[1:]])


@pytest.mark.parametrize(
    "rows", [[[7, 3, 0, b""]], [[5, 3, 0]], [[5, 3, 0, "text"]], ["x"], [[5, 3, 0, b""], [5]]]
)
def test_malformed_entries_are_refused(rows: list[object]) -> None:
    with pytest.raises(MessageError):
        from_wire([5, 1, 2, 3, 4, 5, 6, True, rows])


def test_config_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="positive"):
        RaftConfig(id=0)
    with pytest.raises(ValueError, match="less than election_ticks"):
        RaftConfig(id=1, heartbeat_ticks=10)
