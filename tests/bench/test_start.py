"""The benchmarks of starts and of followers that were away run, check, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bench import catchup, start
from bench.processes import BenchFailed


def test_members_start_again_on_what_they_had(tmp_path: Path) -> None:
    starts = start.Starts([0, 50], runs=1, idle=0.0, directory=str(tmp_path))
    empty, filled = trio.run(start.measure, starts)["results"]
    assert (empty["keys"], filled["keys"]) == (0, 50)
    assert filled["start_seconds"] > 0
    assert filled["memory_mb"] > 0
    assert filled["memory_again_mb"] > 0
    assert list(tmp_path.iterdir()) == []


def test_keys_that_are_gone_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill_less(running: object, keys: int, value_bytes: int) -> None:
        await real(running, keys - 1, value_bytes)  # type: ignore[arg-type]

    real = start.fill
    monkeypatch.setattr(start, "fill", fill_less)
    starts = start.Starts([5], runs=1, idle=0.0, directory=str(tmp_path))
    with pytest.raises(BenchFailed, match="only 4 of 5 keys"):
        trio.run(start.measure, starts)


def test_a_follower_catches_up_and_every_phase_is_measured(tmp_path: Path) -> None:
    absence = catchup.Absence(
        writes=200, rate=50.0, clients=2, seconds=0.5, directory=str(tmp_path)
    )
    told = trio.run(catchup.measure, absence)
    assert [each["phase"] for each in told["results"]] == list(catchup.PHASES)
    assert all(each["puts"] > 0 for each in told["results"])
    assert told["ratio"] > 0
    assert len(told["catch_up_seconds"]) == 1
    assert "200 writes caught up" in catchup.show(told)
    assert list(tmp_path.iterdir()) == []
