"""The quorum benchmark runs, counts, and leaves nothing behind."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench.cells import LoadOptions
from bench.quorum import Grid, add_arguments, run, run_quorum


def test_results_have_their_fields_and_the_directory_is_clean(tmp_path: Path) -> None:
    options = LoadOptions(seconds=1.5, connections=2)
    (result,) = run_quorum(Grid([3], [8], options, directory=str(tmp_path)))
    assert (result["members"], result["clients"], result["store"]) == (3, 8, "raftkv")
    assert result["requests"] > 0
    assert 0 < result["p50_ms"] <= result["p90_ms"] <= result["p99_ms"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", ["", "1,x", "0"])
def test_bad_sizes_are_a_sentence(sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(["--sizes", sizes])) == 2
    assert "list of numbers" in capsys.readouterr().err


def test_json_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = ["--sizes", "1", "--clients", "2", "--seconds", "0.2", "--dir", str(tmp_path)]
    assert run(parser.parse_args([*arguments, "-o", "json"])) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["bench"], told["fsync"], told["results"][0]["members"]) == ("quorum", True, 1)
