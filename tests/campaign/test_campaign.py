"""A short campaign, so that the long ones are known to work."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.campaign.round import play


@pytest.mark.slow
def test_a_short_round(tmp_path: Path) -> None:
    reached = trio.run(play, 1, 3, 4.0, tmp_path)
    assert reached["answered"] > 0
    assert reached["changes"] > 0
