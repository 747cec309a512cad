"""Two minutes of faults against real processes: what `python -m tests.campaign` does without end.

A round that fails names its seed: the same faults come again with `--seed`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio

from tests.campaign.faults import FAULTS
from tests.campaign.round import play

ROUND_SECONDS = 20.0
ROUNDS = {1: 3, 2: 3, 3: 5, 4: 3, 5: 3, 6: 5}
"""Seeds, and how many members each round has."""

REACHED: Counter[str] = Counter()


@pytest.mark.slow
@pytest.mark.parametrize("seed", ROUNDS)
def test_a_round(seed: int, tmp_path: Path) -> None:
    try:
        reached = trio.run(play, seed, ROUNDS[seed], ROUND_SECONDS, tmp_path)
    except BaseException as error:
        error.add_note(f"again: python -m tests.campaign --seed {seed} --members {ROUNDS[seed]}")
        error.add_note(f"the members' logs are in {tmp_path}")
        raise
    assert reached["answered"] > 0
    assert reached["changes"] > 0
    REACHED.update(reached)
    REACHED["rounds"] += 1


def test_every_fault_was_inflicted() -> None:
    if REACHED["rounds"] < len(ROUNDS):
        pytest.skip("not all rounds were played")
    expected = [kind for kind in FAULTS if kind != "full disk" or REACHED["small disks"]]
    assert [kind for kind in expected if not REACHED[kind]] == []
