"""Members come and go under faults (see reshaping.py). `SIM_SEEDS=FIRST:LAST` plays others."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.sim.reshaping import play

_first, _, _last = os.environ.get("SIM_SEEDS", "0:40").partition(":")
REACHED: Counter[str] = Counter()
PLAYED: list[int] = []


@pytest.mark.parametrize("seed", range(int(_first), int(_last)))
def test_a_seed(seed: int) -> None:
    REACHED.update(play(seed).result)
    PLAYED.append(seed)


def test_members_did_come_and_go() -> None:
    if len(PLAYED) < 20:
        pytest.skip("too few seeds were played")
    for what in ("members added", "members promoted", "members removed", "snapshots installed"):
        assert REACHED[what] > 0, what
