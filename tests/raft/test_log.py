"""The log: matching, conflicts, compaction, and the cursors of an outstanding batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft import Entry, HardState, Restored, Snapshot, SnapshotMeta
from raftkv.raft.log import RaftLog


def entries(*terms: int, start: int = 1) -> list[Entry]:
    return [Entry(i, term, 0, b"%d" % i) for i, term in enumerate(terms, start)]


def log_of(*terms: int, commit: int = 0, applied: int = 0) -> RaftLog:
    return RaftLog(Restored(HardState(9, 0, commit), None, entries(*terms), applied))


TERMS = st.lists(st.integers(1, 6), max_size=12).map(sorted)


@pytest.mark.parametrize(
    ("incoming", "expected"),
    [
        ([], None),
        (entries(1, 2, 2), None),
        (entries(2, 2, start=2), None),
        (entries(2, 2, 3, 4, start=2), 2),
        (entries(4, 4, start=4), 0),
        (entries(1, 2, 4, 4), 2),
        (entries(3, 3, start=2), 0),
    ],
)
def test_find_conflict(incoming: list[Entry], expected: int | None) -> None:
    assert log_of(1, 2, 2).find_conflict(incoming) == expected


@given(TERMS, TERMS, st.integers(1, 6))
def test_find_conflict_twin(mine: list[int], theirs: list[int], start: int) -> None:
    log = log_of(*mine)
    incoming = entries(*theirs, start=min(start, len(mine) + 1))
    have = {entry.index: entry.term for entry in entries(*mine)}
    expected = next(
        (p for p, entry in enumerate(incoming) if have.get(entry.index) != entry.term), None
    )
    assert log.find_conflict(incoming) == expected


@given(TERMS, st.integers(0, 14), st.integers(0, 7), st.integers(0, 12))
def test_last_index_with_term_at_most_twin(
    terms: list[int], index: int, term: int, offset: int
) -> None:
    """The binary search against the plain walk back; below the compacted part it gives up."""
    offset = min(offset, len(terms))
    log = log_of(*terms, commit=len(terms), applied=len(terms))
    if offset:
        log.compact(SnapshotMeta(offset, terms[offset - 1], (1,), ()), 0)
    found, found_term = log.last_index_with_term_at_most(index, term)
    walk = min(index, len(terms))
    while walk > offset and terms[walk - 1] > term:
        walk -= 1
    assert found == walk
    if walk > offset:
        assert found_term == terms[walk - 1]
    elif walk < offset or walk == 0 or terms[walk - 1] > term:
        assert found_term == 0


@given(TERMS, st.integers(0, 12), st.integers(0, 7))
def test_up_to_date_is_a_total_order(terms: list[int], index: int, term: int) -> None:
    """Paper 5.4.1: the later last term wins, then the longer log."""
    log = log_of(*terms)
    own = (terms[-1] if terms else 0, len(terms))
    assert log.is_up_to_date(index, term) == ((term, index) >= own)


@given(TERMS, st.integers(0, 12))
def test_term_at_twin(terms: list[int], index: int) -> None:
    log = log_of(*terms)
    expected = 0 if index == 0 else terms[index - 1] if index <= len(terms) else None
    assert log.term_at(index) == expected


def test_slice_is_cut_at_the_byte_limit_but_never_empty() -> None:
    log = RaftLog(
        Restored(HardState(1, 0, 0), None, [Entry(i, 1, 0, b"x" * 10) for i in range(1, 6)])
    )
    assert [e.index for e in log.slice(1, 5, 25)] == [1, 2]
    assert [e.index for e in log.slice(2, 5, 1)] == [2]
    assert [e.index for e in log.slice(1, 5, 50)] == [1, 2, 3, 4, 5]


def test_truncating_committed_entries_is_a_crash() -> None:
    log = log_of(1, 1, 2, commit=2)
    with pytest.raises(AssertionError, match="another member lost entries"):
        log.truncate_from(2)
    log.truncate_from(3)
    assert (log.last_index, log.last_term) == (2, 1)


def test_commit_beyond_the_log_is_a_crash() -> None:
    """etcd#16220 and others: a member that lost its disk must not go on under its old id."""
    with pytest.raises(AssertionError, match="lost from this disk"):
        log_of(1, 1).commit_to(3)
    with pytest.raises(AssertionError, match="lost from this disk"):
        log_of(1, 1, commit=3)


def test_persisted_ignores_what_was_truncated_meanwhile() -> None:
    """The ABA race of raft's async_storage_writes_append_aba_race.txt."""
    log = log_of(1, 1)
    log.append(entries(2, 2, start=3))
    assert [e.index for e in log.take_unhanded()] == [3, 4]
    log.truncate_from(3)
    log.append(entries(3, 3, start=3))
    log.persisted()
    assert log.stable == 2, "entries 3 and 4 of term 3 are not written yet"
    assert [e.term for e in log.take_unhanded()] == [3, 3]
    log.persisted()
    assert log.stable == 4


def test_install_while_a_batch_is_outstanding() -> None:
    log = log_of(1, 1, commit=1)
    log.append(entries(1, start=3))
    log.take_unhanded()
    log.install(Snapshot(SnapshotMeta(10, 2, (1,), ()), b""))
    log.persisted()
    assert log.stable == 1
    assert (log.commit, log.last_index, log.last_term) == (10, 10, 2)
    assert log.take_unhanded() == []
    log.pending_snapshot = None  # RaftNode.take_effects put it into the batch
    log.persisted()
    assert log.stable == 10


def test_compact_keeps_entries_behind() -> None:
    log = log_of(1, 1, 2, 2, 3, commit=5, applied=5)
    log.compact(SnapshotMeta(4, 2, (1,), ()), 2)
    assert (log.first_index, log.term_at(2), log.term_at(1)) == (3, 1, None)
    log.compact(SnapshotMeta(3, 2, (1,), ()), 0)
    assert log.first_index == 3, "an older snapshot compacts nothing"


META = SnapshotMeta(3, 2, (1,), ())


@pytest.mark.parametrize(
    ("found", "offset", "terms"),
    [
        ([], 3, []),
        (entries(2, start=4), 3, [2]),
        (entries(1, 1, 2, 2), 1, [1, 2, 2]),  # kept behind the snapshot
        (entries(1, 1), 3, []),  # the snapshot came from the leader, the log was behind
        (entries(1, 1, 1, 1), 3, []),  # ... or another one, which it replaced
        (entries(1, 1, 1, 2), 3, [2]),  # ... and then the log went on
    ],
)
def test_restore_with_snapshot(found: list[Entry], offset: int, terms: list[int]) -> None:
    log = RaftLog(Restored(HardState(2, 0, 0), META, found, 3))
    assert (log.offset, [e.term for e in log.entries]) == (offset, terms)
    assert log.commit == log.applied == 3


def test_restore_refuses_gaps() -> None:
    with pytest.raises(AssertionError, match="gap"):
        RaftLog(Restored(HardState(2, 0, 0), META, entries(2, start=5), 3))
    with pytest.raises(AssertionError, match="gap"):
        RaftLog(Restored(HardState(2, 0, 0), META, [*entries(1), *entries(2, start=3)], 3))
    with pytest.raises(AssertionError, match="beginning"):
        RaftLog(Restored(HardState(2, 0, 0), None, entries(2, start=5), 0))
