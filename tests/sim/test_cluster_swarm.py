"""The swarm on whole clusters: see cluster_story.py. A failure names its replay.

`CLUSTER_SEEDS=FIRST:LAST` plays other seeds than those of every run.
"""

from __future__ import annotations

import os

import pytest

from tests.sim.cluster_story import play

_first, _, _last = os.environ.get("CLUSTER_SEEDS", "0:10").partition(":")


@pytest.mark.parametrize("seed", range(int(_first), int(_last)))
def test_a_seed(seed: int) -> None:
    try:
        told = play(seed).result
    except BaseException as error:
        error.add_note(f"replay: python -m tests.sim.replay {seed} --story cluster")
        raise
    assert told.answered > 0
