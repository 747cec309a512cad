"""Small clusters that are born, hurt and ended at bad moments; nothing of them may stay."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest

from k8slite.cluster.cleanup import leftovers
from tests.cluster.real import Cluster, cluster, eventually

pytestmark = pytest.mark.slow

SMALL = ("--fast", "--runtime", "process", "--control-planes", "1", "--nodes", "1")
SEED = 20


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(8)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))


@pytest.mark.parametrize("number", range(5))
def test_up_may_be_ended_at_any_moment(tmp_path: Path, number: int) -> None:
    rng = random.Random(SEED * 100 + number)
    how = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
    flags = ("--detach",) if number % 2 else ()
    with cluster(tmp_path / "home", f"moment-{number}") as made:
        with made.popen("up", *SMALL, *flags) as up:
            time.sleep(rng.uniform(0.05, 2.0))  # the moment is what is tested
            up.send_signal(how)
            up.communicate(timeout=60)
        if up.returncode != 0:  # one that was detached in time runs on
            assert eventually(lambda: not made.layout.is_running())
            assert leftovers(made.name, made.layout) == []
        if made.layout.is_ours():
            made.must("down")
        assert not (tmp_path / "home").exists()


def test_ctrl_c_stops_and_a_start_goes_on(tmp_path: Path) -> None:
    with cluster(tmp_path / "home", "fg") as made:
        with made.popen("up", *SMALL) as up:
            assert up.stdout is not None
            while "Ctrl-C stops it" not in up.stdout.readline():
                assert up.poll() is None
            made.write("kept")
            up.send_signal(signal.SIGINT)
            words, _ = up.communicate(timeout=60)
        assert up.returncode == 0
        assert "its data is kept" in words
        assert leftovers(made.name, made.layout) == []
        made.must("start")
        assert made.has("kept")


@pytest.mark.parametrize("who", ["supervisor", "zygote", "all"])
def test_what_is_killed_while_it_starts_leaves_nothing(tmp_path: Path, who: str) -> None:
    with cluster(tmp_path / "home", f"killed-{who}") as made:
        with made.popen("up", *SMALL, "--detach") as up:
            log = made.layout.log("raftkv-1")
            assert eventually(lambda: log.exists() or up.poll() is not None)
            if who == "all":
                made.kill_all()
            else:
                pids = made.status()["own"] if who == "zygote" else {}
                pid = pids["zygote"]["pid"] if pids else int(made.layout.lock.read_text())
                os.kill(pid, signal.SIGKILL)
            words, _ = up.communicate(timeout=120)
        assert (up.returncode == 0) == (who == "zygote"), words
        if who != "zygote":
            assert leftovers(made.name, made.layout) == []


def test_a_port_that_somebody_has_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock, cluster(tmp_path / "h", "port") as made:
        port = str(sock.getsockname()[1])
        code, words = made.run("up", *SMALL, "--detach", "--port", port)
        assert code == 1
        assert f"port {port} of 127.0.0.1 is in use" in words
        assert not (tmp_path / "h").exists()


def test_memory_is_a_store_too_and_says_so(tmp_path: Path) -> None:
    directory = tmp_path / ("long " * 30)
    with cluster(tmp_path / "h", "mem") as made:
        flags = ("--store", "memory", "--runtime", "fake", "--nodes", "0", "--dir", str(directory))
        made.must("up", "--detach", "--fast", *flags)
        made.write("gone")
        assert "are gone" in made.must("stop")
        made.must("start")
        assert not made.has("gone")
    assert not directory.exists()


THREE = ("--fast", "--runtime", "process", "--control-planes", "3", "--nodes", "0")


def log_of(made: Cluster, member: int) -> Path:
    return sorted((made.layout.root / "data" / f"raftkv-{member}").glob("*.wal"))[0]


def test_damaged_logs_of_the_store(tmp_path: Path) -> None:
    with cluster(tmp_path / "home", "damaged") as made:
        made.must("up", "--detach", *THREE)
        made.write("kept")
        made.must("stop")
        tail = log_of(made, 3)
        os.truncate(tail, tail.stat().st_size - 17)  # what a crash does
        flip(log_of(made, 2), 3000)  # what only a disk does
        words = made.must("up", "--detach")
        assert "warning: raftkv-2 does not start: WalDamaged" in words
        assert made.has("kept")
        row = made.row("raftkv-2")
        assert "is damaged at byte" in row["last_words"]
        assert row["last_exit"] == "ended with code 3"
        assert "ended with code 3" in made.must("status")
        assert "is damaged at byte" in made.must("logs", "raftkv-2")
        made.must("stop")
        flip(log_of(made, 1), 3000)
        code, words = made.run("up", "--detach")
        assert code == 1
        assert "WalDamaged" in words
        assert made.run("status")[0] == 3
        assert leftovers(made.name, made.layout) == []
