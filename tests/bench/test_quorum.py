"""The quorum benchmark: its conditions, killed leaders, slow links, and nothing left behind."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from bench.cells import LoadOptions, check_nothing_lost, gap
from bench.load import pauses
from bench.processes import BenchFailed, Running, environment
from bench.quorum import Grid, add_arguments, measure, run, show
from bench.sources import CheckedSource, count_of
from bench.stores import open_store
from bench.wires import Wires, parse_latency
from raftkv.client import open_client
from raftkv.os_host import OsHost

COMMAND = [sys.executable, "-m", "raftkv.cli", "bench"]


def members_below(directory: Path) -> list[str]:
    """Command lines of processes that know this directory."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in lines if str(directory) in line]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_ended(how: signal.Signals, tmp_path: Path) -> None:
    command = [*COMMAND, "--sizes", "3", "--seconds", "30", "--latency", "1", "--dir"]
    process = subprocess.Popen(
        [*command, str(tmp_path)], env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        deadline = time.monotonic() + 30
        while len(members_below(tmp_path)) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(members_below(tmp_path)) == 4  # three members, and the benchmark itself
    finally:
        process.send_signal(how)
        code = process.wait(30)
    complaint = process.stderr.read()
    process.stderr.close()
    deadline = time.monotonic() + 10  # the kernel ends them after us where we were killed
    while members_below(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert members_below(tmp_path) == []
    if how != signal.SIGKILL:
        assert (code, complaint, list(tmp_path.iterdir())) == (130, "", [])


def test_a_member_that_ends_is_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_store("raftkv", 3, parent=str(tmp_path)) as running:
            running.processes[1].kill()
            running.processes[1].wait()

    with pytest.raises(BenchFailed, match="member 2 of raftkv ended"):
        trio.run(main)
    assert (members_below(tmp_path), list(tmp_path.iterdir())) == ([], [])


def test_a_killed_leader_is_reported_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    options = LoadOptions(seconds=4, connections=2, kill_leader=True)
    told = trio.run(measure, Grid([3], [4], options, directory=str(tmp_path)))
    (result,) = told["results"]
    assert result["gap_ms"] > 0
    assert result["lost"] == 0
    assert "GAP MS" in show(told)


def test_something_lost_is_found(tmp_path: Path) -> None:
    async def main(acknowledged: dict[str, int]) -> None:
        async with open_store("raftkv", 1, parent=str(tmp_path)) as running:
            await put(running, {b"bench/00000001": b"%012dxx" % 7, b"bench/00000002": b"%012d" % 1})
            await check_nothing_lost(running, {"bench/00000001": 7})
            await check_nothing_lost(running, {"bench/00000001": 6, "bench/00000002": 1})
            await check_nothing_lost(running, acknowledged)

    with pytest.raises(BenchFailed, match="LOST put 8"):
        trio.run(main, {"bench/00000001": 8})
    with pytest.raises(BenchFailed, match="is not there"):
        trio.run(main, {"bench/00000003": 1})


async def put(running: Running, pairs: dict[bytes, bytes]) -> None:
    host = OsHost()
    async with open_client(running.addresses, host.net, rng=host.rng) as kv:
        for key, value in pairs.items():
            await kv.put(key, value)


def test_acknowledged_puts_are_noted() -> None:
    acknowledged: dict[bytes, int] = {}
    moments: list[float] = []
    source = CheckedSource(range(0, 100, 2), 20, acknowledged, moments)
    ((_, (_, key, value)), _) = source.ask([0, 1])
    source.answered([0], 5.0)
    assert (acknowledged, moments, len(value)) == ({key: count_of(value)}, [5.0], 20)


def test_the_gap_is_the_longest_pause_after_the_kill() -> None:
    moments = [1.0, 1.001, 3.0, 3.2, 3.9, 3.95]
    assert pauses(moments) == [(1.001, 3.0), (3.0, 3.2), (3.2, 3.9), (3.9, 3.95)]
    assert gap(pauses(moments), 3.3) == pytest.approx(0.6)
    with pytest.raises(BenchFailed):
        gap(pauses(moments), 4.0)


def test_slow_links_slow_every_put(tmp_path: Path) -> None:
    grid = Grid([3], [2], LoadOptions(seconds=1.5), directory=str(tmp_path), wires=Wires(20.0))
    told = trio.run(measure, grid)
    assert told["results"][0]["p50_ms"] >= 40
    assert "20 ms" in show(told)


def test_without_fsync(tmp_path: Path) -> None:
    grid = Grid([1], [2], LoadOptions(seconds=0.2), directory=str(tmp_path), fsync=False)
    assert trio.run(measure, grid)["fsync"] is False


@pytest.mark.parametrize("text", ["", "x", "-1", "5:x", "5:-1", "nan", "1e9"])
def test_bad_latencies_are_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no latency"):
        parse_latency(text)


def test_latencies() -> None:
    assert parse_latency("5:1") == Wires(5.0, 1.0)
    assert parse_latency("wan").latency_ms > parse_latency("lan").latency_ms


@pytest.mark.parametrize(
    "words",
    [
        ["--sizes", "1,3", "--kill-leader"],
        ["--kill-leader", "--sizes", "3", "--compare", "etcd"],
        ["--no-fsync", "--compare", "etcd"],
        ["--latency", "far"],
        ["--clients", "0"],
        ["--seconds", "0"],
        ["--rounds", "0"],
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args(words)) == 2
    assert capsys.readouterr().err.startswith("bench quorum: ")


def test_raftkv_bench_is_this(tmp_path: Path) -> None:
    picture = tmp_path / "quorum.svg"
    words = ["--sizes", "1", "--clients", "2", "--seconds", "0.2", "-o", "json", "--svg"]
    ran = subprocess.run(
        [*COMMAND, *words, str(picture)], env=environment(), capture_output=True, check=True
    )
    told = json.loads(ran.stdout)
    assert (told["bench"], len(told["results"]), ran.stderr) == ("quorum", 1, b"")
    assert "raftkv, 2 clients" in picture.read_text()
