"""The tests of the tests: each bug that is planted into a member is noticed by a checker."""

from __future__ import annotations

import pytest

from tests.sim.planted import FOUND_BY, PLANTED, finding


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    seed, checker = FOUND_BY[name]
    assert finding(name, seed) == checker, "find the seeds anew: python -m tests.sim.planted"
