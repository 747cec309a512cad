"""The promises are measured one by one; who breaks one is told, in words and in the exit code."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import attrs
import pytest
import trio

from bench import promises
from bench.check_perf import throughput
from bench.comparison import add_ratios
from bench.processes import BenchFailed

TINY = promises.Effort(seconds=0.3, rounds=1, kills=1, keys=200, watchers=20)


def test_rows_without_etcd(tmp_path: Path) -> None:
    effort = attrs.evolve(TINY, directory=str(tmp_path))
    told = trio.run(promises.measure, effort, ["watch", "start", "failover"])
    words = [row["promise"] for row in told["results"]]
    assert words == [
        "events to 20 watchers on 20 connections",
        "memory of an idle member",
        "memory with 200 keys",
        "start with 200 keys",
        "failover, median of 1 kills",
    ]
    assert told["results"][0]["holds"] is False  # 20 watchers are too few for 100,000 events/s
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.tool("etcd")
def test_rows_beside_etcd(tmp_path: Path) -> None:
    effort = attrs.evolve(TINY, directory=str(tmp_path))
    told = trio.run(promises.measure, effort, ["puts", "gets"])
    assert len(told["results"]) == 9
    assert all(row["etcd"] for row in told["results"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells(
    holds: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def part(effort: promises.Effort) -> list[promises.Row]:
        return [promises.Row("one", "> 0", "1", holds=holds)]

    monkeypatch.setitem(promises.PARTS, "gets", part)  # type: ignore[misc]
    parser = argparse.ArgumentParser()
    promises.add_arguments(parser)
    assert promises.run(parser.parse_args(["--only", "gets"])) == code
    assert ("NO" in capsys.readouterr().out.splitlines()[-1]) is not holds
    assert promises.run(parser.parse_args(["--only", "gets", "-o", "json"])) == code
    assert json.loads(capsys.readouterr().out)["results"][0]["holds"] is holds


def test_what_cannot_be_measured_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(effort: promises.Effort) -> list[promises.Row]:
        raise BenchFailed("a member ended")

    async def fine(effort: promises.Effort) -> list[promises.Row]:
        return [promises.Row("one", "> 0", "1", holds=True)]

    monkeypatch.setitem(promises.PARTS, "gets", broken)  # type: ignore[misc]
    monkeypatch.setitem(promises.PARTS, "watch", fine)  # type: ignore[misc]
    told = trio.run(promises.measure, TINY, ["gets", "watch"])
    assert [row["holds"] for row in told["results"]] == [False, True]
    assert "a member ended" in told["results"][0]["measured"]
    assert promises.verdict(told) == 1


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    promises.add_arguments(parser)
    assert promises.run(parser.parse_args(["--only", "gest"])) == 2
    assert "'gest'" in capsys.readouterr().err


def test_what_etcdctl_says() -> None:
    assert throughput("60 / 60 Boo!\nPASS: Throughput is 149 writes/s\nPASS\n") == 149
    assert throughput("FAIL: Throughput too low: 8451 writes/s\nFAIL\n") == 8451
    for said in ("", "Error: context deadline exceeded\n", "FAIL: ERROR(x) -> 3\n"):
        with pytest.raises(BenchFailed):
            throughput(said)


def test_ratios_compare_the_same_cell() -> None:
    def row(store: str, members: int, rate: float) -> dict[str, object]:
        return {
            "store": store,
            "op": "put",
            "members": members,
            "clients": 1,
            "per_second": rate,
        }

    rows = [row("raftkv", 3, 30.0), row("etcd", 3, 10.0), row("raftkv", 5, 1.0)]
    add_ratios(rows)
    assert [each.get("ratio") for each in rows] == [3.0, None, None]
