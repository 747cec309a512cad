"""Clusters whose members change under faults, seed by seed (see reshaping.py).

`RESHAPING_SEEDS=FIRST:LAST` plays other seeds.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.pool import Pool, seeds_of

SEEDS = seeds_of("RESHAPING_SEEDS", "0:100")
BATCH = 25

REACHED: Counter[str] = Counter()
SOMETIMES = ("members added", "members promoted", "members removed", "snapshots installed")


@pytest.mark.parametrize("first", range(SEEDS.start, SEEDS.stop, BATCH))
def test_seeds(first: int, pool: Pool) -> None:
    failures = []
    for played in pool.play("reshaping", range(first, min(first + BATCH, SEEDS.stop))):
        REACHED.update(played.reached)
        REACHED["seeds"] += 1
        if played.failure:
            failures.append(played.failure)
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)


def test_members_did_come_and_go() -> None:
    if REACHED["seeds"] < 40:
        pytest.skip("too few seeds were played")
    assert [name for name in SOMETIMES if not REACHED[name]] == []
