"""Gets read keys that are there, from raftkv, and from etcd where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bench.cells import LoadOptions
from bench.gets import Reads, measure

OPTIONS = LoadOptions(op="get", seconds=1.5, connections=2, keys=50)


def test_gets(tmp_path: Path) -> None:
    told = trio.run(measure, Reads([1], [4], OPTIONS, directory=str(tmp_path)))
    (result,) = told["results"]
    assert (result["op"], result["clients"]) == ("get", 4)
    assert result["requests"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tool("etcd")
def test_beside_etcd(tmp_path: Path) -> None:
    reads = Reads([1], [4], OPTIONS, ("raftkv", "etcd"), directory=str(tmp_path))
    ours, theirs = trio.run(measure, reads)["results"]
    assert (ours["store"], theirs["store"]) == ("raftkv", "etcd")
    assert theirs["requests"] > 0
    assert ours["ratio"] == round(ours["per_second"] / theirs["per_second"], 2)
