"""The checkers catch what they are for: planted violations, one by one."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkers.agreement import Agreement, Disagreement
from tests.checkers.history import History, Operation, Outcome
from tests.checkers.leases import LeaseLife, LeaseViolation, check_lease
from tests.checkers.linearizable import ABSENT, NotLinearizable, check_linearizable, step
from tests.checkers.revisions import Change, RevisionViolation, check_revisions
from tests.checkers.watches import WatchViolation, check_watch

K = b"k"


def done(
    history: History,
    span: tuple[float, float],
    kind: str,
    argument: object = None,
    result: object = None,
    revision: int | None = None,
) -> Operation:
    operation = history.begin(span[0], 1, kind, K, argument)
    operation.ok(span[1], result, revision)
    return operation


def test_a_plain_history_is_linearizable() -> None:
    history = History()
    done(history, (0, 1), "get", result=None)
    done(history, (1, 2), "put", b"a", revision=2)
    done(history, (3, 4), "get", result=(b"a", 2))
    done(history, (5, 6), "cas", (2, b"b"), True, 3)
    done(history, (7, 8), "cas", (2, b"c"), False, 3)
    done(history, (9, 10), "delete", result=True, revision=4)
    done(history, (11, 12), "get", result=None)
    assert check_linearizable(history) == 7


def test_a_stale_read_is_caught() -> None:
    history = History()
    done(history, (0, 1), "put", b"a", revision=2)
    done(history, (2, 3), "put", b"b", revision=3)
    done(history, (4, 5), "get", result=(b"a", 2))
    with pytest.raises(NotLinearizable, match="get"):
        check_linearizable(history)


def test_concurrent_operations_may_be_ordered_either_way() -> None:
    history = History()
    done(history, (0, 10), "put", b"a")
    done(history, (0, 10), "put", b"b")
    done(history, (1, 2), "get", result=(b"b", 3))
    done(history, (3, 4), "get", result=(b"a", 4))
    check_linearizable(history)
    done(history, (5, 6), "get", result=(b"b", 3))
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


def test_a_lost_write_is_caught_and_one_of_unknown_outcome_is_not() -> None:
    history = History()
    history.begin(0, 1, "put", K, b"perhaps")
    done(history, (1, 2), "get", result=None)
    check_linearizable(history)
    done(history, (3, 4), "get", result=(b"perhaps", 2))
    check_linearizable(history)
    done(history, (5, 6), "get", result=None)
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


def test_a_refused_write_that_took_effect_is_caught() -> None:
    history = History()
    history.begin(0, 1, "put", K, b"refused").failed(1)
    done(history, (2, 3), "get", result=(b"refused", 2))
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


def test_two_winners_of_one_compare_are_caught() -> None:
    history = History()
    done(history, (0, 9), "cas", (0, b"a"), True, 2)
    done(history, (0, 9), "cas", (0, b"b"), True, 3)
    with pytest.raises(NotLinearizable):
        check_linearizable(history)


def _brute_force(operations: list[Operation]) -> bool:
    """The dumb twin: every order of every choice of unknown operations."""
    known = [o for o in operations if o.outcome is Outcome.OK]
    unknown = [o for o in operations if o.outcome is Outcome.UNKNOWN]
    for choice in range(1 << len(unknown)):
        chosen = known + [o for bit, o in enumerate(unknown) if choice >> bit & 1]
        for order in permutations(chosen):
            if any(
                later.returned < earlier.called
                for place, earlier in enumerate(order)
                for later in order[place + 1 :]
            ):
                continue
            states = [ABSENT]
            for operation in order:
                states = [after for state in states for after in step(state, operation)]
            if states:
                return True
    return False


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_the_search_agrees_with_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    history = History()
    for number in range(rng.randrange(1, 6)):
        called = rng.randrange(10)
        kind = rng.choice(["put", "get", "delete", "get"])
        value = b"%d" % number
        read = (b"%d" % rng.randrange(6), None)
        operation = history.begin(called, number, kind, K, value if kind == "put" else None)
        if kind == "get" or rng.random() < 0.7:
            result = {"put": None, "delete": rng.random() < 0.5, "get": rng.choice([None, read])}
            operation.ok(called + rng.randrange(6), result[kind], None)
            if kind == "get" and operation.result is not None:
                # Revisions are of no matter here: let any do.
                operation.result = (operation.result[0], None)
    try:
        check_linearizable(history)
        found = True
    except NotLinearizable:
        found = False
    assert found == _brute_force(history.operations)


CHANGES = [Change(2, K, b"a"), Change(3, K, b"b"), Change(4, K, None)]


def _good_history() -> History:
    history = History()
    done(history, (0, 1), "put", b"a", revision=2)
    done(history, (2, 3), "get", result=(b"a", 2), revision=2)
    done(history, (4, 5), "put", b"b", revision=3)
    done(history, (6, 7), "delete", result=True, revision=4)
    done(history, (8, 9), "get", result=None, revision=4)
    return history


def test_answers_that_fit_the_revisions_pass() -> None:
    check_revisions(_good_history(), CHANGES)


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        (lambda h: done(h, (10, 11), "put", b"c", revision=5), "acknowledged and lost"),
        (lambda h: done(h, (10, 11), "get", result=(b"b", 3), revision=4), "there was None"),
        (lambda h: done(h, (10, 11), "get", result=(b"b", 3), revision=3), "went back in time"),
        (lambda h: h.operations.pop(0), "nobody wrote"),
        (lambda h: h.operations[0].failed(1), "refused, and there"),
    ],
)
def test_answers_that_do_not_fit_are_caught(plant: object, complaint: str) -> None:
    history = _good_history()
    assert callable(plant)
    plant(history)
    with pytest.raises(RevisionViolation, match=complaint):
        check_revisions(history, CHANGES)


def test_what_came_after_the_known_changes_is_not_judged() -> None:
    history = _good_history()
    done(history, (10, 11), "put", b"c", revision=5)
    check_revisions(history, CHANGES, complete_to=4)
    with pytest.raises(RevisionViolation, match="acknowledged and lost"):
        check_revisions(history, CHANGES, complete_to=5)


def test_a_write_that_took_effect_twice_is_caught() -> None:
    with pytest.raises(RevisionViolation, match="written twice"):
        check_revisions(_good_history(), [*CHANGES, Change(5, K, b"a")])


def test_agreement() -> None:
    agreement = Agreement()
    agreement.saw_leader(1, 1)
    agreement.saw_leader(1, 1)
    agreement.saw_leader(2, 2)
    with pytest.raises(Disagreement, match="two leaders"):
        agreement.saw_leader(3, 2)
    agreement.saw_committed(1, 1, 1, 77)
    agreement.saw_committed(2, 1, 1, 77)
    with pytest.raises(Disagreement, match="index 1"):
        agreement.saw_committed(3, 1, 2, 77)
    agreement.saw_member(1, 1, 5, 9)
    agreement.saw_member(1, 2, 5, 3)
    with pytest.raises(Disagreement, match="commit"):
        agreement.saw_member(1, 2, 6, 2)
    with pytest.raises(Disagreement, match="term"):
        agreement.saw_member(1, 3, 4, 9)
    agreement.saw_state(1, 10, 5)
    with pytest.raises(Disagreement, match="state at 10"):
        agreement.saw_state(2, 10, 6)


ALL = [Change(2, b"a", b"1"), Change(2, b"b", b"2"), Change(3, b"z", b"3"), Change(4, b"a", None)]


def test_a_watch_that_shows_everything_passes() -> None:
    check_watch([ALL[:2], ALL[2:]], ALL, start=2, complete_to=4)
    check_watch([[ALL[0]], [ALL[3]]], ALL, start=1, key=b"a", end=b"b", complete_to=4)
    check_watch([[ALL[0], ALL[1]]], ALL, start=2)
    check_watch([], ALL, start=9, complete_to=99)


@pytest.mark.parametrize(
    ("batches", "complaint"),
    [
        ([ALL[:2], ALL[3:]], "was next"),
        ([ALL[:2], ALL[1:]], "after 2 was shown"),
        ([[ALL[0]], [ALL[1]]], "after 2 was shown"),
        ([[ALL[0]]], "in part"),
        ([ALL[:3]], "never shown"),
        ([[ALL[2]], ALL[:2]], "after 3 was shown"),
        ([[*ALL, Change(5, b"a", b"x")]], "where None"),
    ],
)
def test_a_watch_that_does_not_is_caught(batches: list[list[Change]], complaint: str) -> None:
    with pytest.raises(WatchViolation, match=complaint):
        check_watch(batches, ALL, start=2, complete_to=4)


def test_lease_bounds() -> None:
    life = LeaseLife(1, ttl=10, called=0, attempted=1)
    check_lease(life, now=11.5, slack=1)
    with pytest.raises(LeaseViolation, match="still there"):
        check_lease(life, now=12.5, slack=1)
    life.gone = 9.0
    with pytest.raises(LeaseViolation, match="before"):
        check_lease(life, now=12, slack=1)
    life.revoked = True
    check_lease(life, now=12, slack=1)
    kept = LeaseLife(1, ttl=10, called=0, attempted=1)
    kept.renewed(5, 6)
    kept.gone = 14.0
    with pytest.raises(LeaseViolation, match=r"before 15"):
        check_lease(kept, now=20, slack=1)
