"""The failover benchmark kills, measures and leaves nothing behind."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench.failover import add_arguments, plot, run, summary


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_one_kill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed("--kills", "1", "--dir", str(tmp_path), "-o", "json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["bench"], told["members"], told["kills"]) == ("failover", 3, 1)
    assert told["gaps_ms"][0] > 0
    assert list(tmp_path.iterdir()) == []


def test_too_few_members_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed("--members", "2")) == 2
    assert "3 members or more" in capsys.readouterr().err


def test_distribution() -> None:
    found = summary([0.31, 0.12, 0.15])
    assert (found["kills"], found["median_ms"], found["max_ms"]) == (3, 150.0, 310.0)
    assert plot([0.31, 0.12, 0.15]).splitlines()[1].split()[4] == "2"
