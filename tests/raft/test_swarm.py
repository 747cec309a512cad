"""The swarm: many seeds with faults, and the proof that it would notice.

RAFT_SWARM_SEEDS sets how many fixed seeds are run (default 400). Some fresh ones come on top; a
failure prints the command that replays its seed.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from tests.raft.planted import PLANTED, found_by
from tests.raft.swarm import World, run_seed

SEEDS = int(os.environ.get("RAFT_SWARM_SEEDS", "400"))
BATCH = 10

# What must have happened somewhere in the fixed seeds, or they test less than they claim.
REACHED = (
    "became candidate",
    "became follower",
    "became leader",
    "became pre-candidate",
    "change or transfer refused",
    "crash",
    "hung disk",
    "log truncated",
    "logs compared",
    "membership changed",
    "message lost",
    "partition isolate",
    "partition one way",
    "partition split",
    "progress probe",
    "progress replicate",
    "progress snapshot",
    "read confirmed",
    "read failed",
    "snapshot installed",
    "snapshot sent",
    "snapshot taken",
    "torn write",
    "transfer asked",
)

_reached: Counter[str] = Counter()


@pytest.mark.parametrize("first", range(1, SEEDS + 1, BATCH))
def test_seeds(first: int) -> None:
    for seed in range(first, min(first + BATCH, SEEDS + 1)):
        _reached.update(run_seed(seed))


@pytest.mark.skipif(SEEDS < 100, reason="too few seeds to reach everything")
def test_interesting_states_were_reached() -> None:
    if not _reached:
        pytest.skip("runs after test_seeds only")
    assert [name for name in REACHED if not _reached[name]] == []


def test_fresh_seeds() -> None:
    for _ in range(3):
        run_seed(random.SystemRandom().randrange(1 << 48))


def trace_hash(seed: int) -> str:
    digest = hashlib.blake2b()
    run_seed(seed, lambda line: digest.update(line.encode()))
    return digest.hexdigest()


def test_one_seed_one_trace() -> None:
    """Also in another process with another hash seed: no order of a set may decide anything."""
    code = "from tests.raft.test_swarm import trace_hash; print(trace_hash(17))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == trace_hash(17) == trace_hash(17)
    assert trace_hash(17) != trace_hash(18)


def test_worlds_differ() -> None:
    worlds = [World.draw(random.Random(seed)) for seed in range(50)]
    assert {len(world.voters) for world in worlds} == {1, 3, 5, 7}
    assert len(set(worlds)) > 45


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_found(name: str) -> None:
    """A swarm that finds nothing is worth as much as what it would find."""
    assert found_by(name) is not None, "look what finds it: python -m tests.raft.planted"
