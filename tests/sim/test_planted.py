"""The tests of the tests: each bug that is planted into a member is noticed by a checker."""

from __future__ import annotations

import pytest

from tests.sim.planted import FOUND_BY, PLANTED, found_by


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    _, checker = FOUND_BY[name]
    seed = found_by(name, checker)
    assert seed is not None, "look what finds it: python -m tests.sim.planted"
