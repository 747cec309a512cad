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
from tests.sim.scenario import play

_first, _, _last = os.environ.get("SIM_SEEDS", "0:200").partition(":")
SEEDS = range(int(_first), int(_last))

REACHED: Counter[str] = Counter()
PLAYED: list[int] = []

SOMETIMES = (
    "elections",
    "snapshots installed",
    "reads failed",
    "operations answered",
    "operations unknown",
    "leases gone",
    *FAULT_KINDS,
)
"""What a campaign must have met, or it tests less than it seems to."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed(seed: int) -> None:
    try:
        outcome = play(seed)
    except BaseException as error:
        error.add_note(f"replay: python -m tests.sim.replay {seed}")
        raise
    REACHED.update(outcome.result.reached)
    PLAYED.append(seed)


def test_the_campaign_met_what_it_is_for() -> None:
    if len(PLAYED) < 100:
        pytest.skip("too few seeds were played")
    assert [name for name in SOMETIMES if not REACHED[name]] == []


@pytest.mark.parametrize("seed", [3, 17])
def test_two_processes_play_a_seed_alike(seed: int) -> None:
    hashes = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim.replay", str(seed), "--log", "CRITICAL"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        hashes.append(done.stdout.splitlines()[-1].split()[0])
    assert len(hashes[0]) == 32
    assert hashes[0] == hashes[1]
