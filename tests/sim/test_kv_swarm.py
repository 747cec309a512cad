"""The swarm: many seeds, each a story of faults (see scenario.py). A failure names its replay.

`SIM_SEEDS=FIRST:LAST` plays other seeds than those of every run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from netsim.swarm import FAULT_KINDS
from tests.sim.pool import Pool, seeds_of

SEEDS = seeds_of("SIM_SEEDS", "0:1000")
BATCH = 50

REACHED: Counter[str] = Counter()

SOMETIMES = (
    *(f"{count} members" for count in (1, 3, 5, 7)),
    "elections",
    "log truncated",
    "restarted with a log",
    "snapshots installed",
    "reads failed",
    "operations answered",
    "operations unknown",
    "leases gone",
    "states compared",
    "a watcher compacted",
    "a bit flipped",
    "a write misdirected",
    "a client stopped",
    "a blackout",
    "damage refused",
    "a disk wiped",
    *FAULT_KINDS,
)
"""What a campaign must have met, or it tests less than it seems to."""


@pytest.mark.parametrize("first", range(SEEDS.start, SEEDS.stop, BATCH))
def test_seeds(first: int, pool: Pool) -> None:
    failures = []
    for played in pool.play("kv", range(first, min(first + BATCH, SEEDS.stop))):
        REACHED.update(played.reached)
        REACHED["seeds"] += 1
        if played.failure:
            failures.append(played.failure)
    if failures:
        pytest.fail("\n".join(failures), pytrace=False)


def test_the_campaign_met_what_it_is_for() -> None:
    if REACHED["seeds"] < 500:
        pytest.skip("too few seeds were played")
    assert [name for name in SOMETIMES if not REACHED[name]] == []


def test_two_processes_play_the_seeds_alike() -> None:
    """Whatever their hash seeds, and whichever worker plays them: no order of a set decides."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.sim.pool", "0:16"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    hashes = [run.communicate(timeout=300)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert len(set(hashes[0])) == 16
    assert hashes[0] == hashes[1]
