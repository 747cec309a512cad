"""The command line without a cluster: what is refused, how, and with which exit code."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8slite.cli import main as program
from k8slite.cli.logs import follow
from k8slite.cli.output import age, bytes_of, several
from k8slite.cluster.layout import find
from k8slite.cluster.spec import ClusterSpec, Place
from tests.kubelet import archives


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("K8SLITE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def commands(parser: argparse.ArgumentParser, *path: str) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield (*path, name)
                yield from commands(each, *path, name)


@pytest.mark.parametrize("path", list(commands(program.parser())), ids=" ".join)
def test_every_command_explains_itself(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        program.main([*path, "--help"])
    assert left.value.code == 0
    assert f"usage: k8slite {' '.join(path)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("", 2, "usage: k8slite"),
        ("status", 1, "there is no cluster 'local'"),
        ("status --name ../x", 2, "--name '../x'"),
        ("down", 1, "there is no cluster"),
        ("stop", 1, "there is no cluster"),
        ("start", 1, "there is no cluster"),
        ("kubeconfig", 1, "k8slite up makes one"),
        ("logs raftkv-1", 1, "there is no cluster"),
        ("chaos kill raft-leader", 1, "there is no cluster"),
        ("chaos kill raft-leader --for soon", 2, "20s, 2m, or inf"),
        ("image list", 1, "there is no cluster"),
        ("up --control-planes 0", 2, "--control-planes 0"),
        ("up --port 70000", 2, "--port 70000"),
        ("up --store memory --control-planes 3", 2, "needs --store raftkv"),
        ("up --runtime process --proxy iptables", 2, "do not go together"),
        ("up --token-auth-file /nonexistent", 1, "cannot be read"),
        ("up --dir /dev/null", 2, "is not a directory"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    line: str, code: int, words: str, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(line.split()) == code
    told = capsys.readouterr()
    assert words in told.err
    assert told.out == ""
    if line:
        assert told.err.startswith("error: ")
        assert told.err.count("\n") == 1
    assert not own_home.exists()


@pytest.mark.parametrize("line", ["dance", "up --nodes many", "chaos explode x", "logs"])
def test_a_wrong_command_line_has_code_2(line: str) -> None:
    with pytest.raises(SystemExit) as left:
        program.main(line.split())
    assert left.value.code == 2


def stopped(name: str, *, port: int = 6443) -> Path:
    layout = find(name)
    layout.claim(name)
    layout.write(
        ClusterSpec(name=name, runtime="process"), Place(port=port, slot=0, first_port=20_000)
    )
    return layout.root


def test_a_stopped_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    stopped("a")
    assert program.main(["status", "--name", "a"]) == 3
    assert "k8slite start --name a" in capsys.readouterr().out
    assert program.main(["status", "--name", "a", "-o", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["running"] is False
    assert program.main(["list", "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"], row["nodes"], row["port"]) == ("a", "stopped", 2, 6443)
    assert program.main(["chaos", "kill", "node-1", "--name", "a"]) == 1
    assert "is not running" in capsys.readouterr().err
    assert program.main(["kubeconfig", "--name", "a"]) == 1
    assert program.main(["stop", "--name", "a"]) == 0
    assert "was not running" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    ["--nodes 5", "--control-planes 1", "--runtime fake", "--proxy none", "--store memory",
     "--fast", "--port 7000", "--token-auth-file /dev/null"],
)  # fmt: skip
def test_flags_that_would_change_a_cluster_are_refused(
    flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped("a")
    assert program.main(["up", "--name", "a", *flags.split()]) == 1
    told = capsys.readouterr().err
    assert flags.split()[0] in told
    assert "k8slite down --name a" in told


def test_a_broken_cluster_can_be_listed_and_deleted(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = stopped("a")
    (root / "cluster.json").write_text("{")
    assert program.main(["list", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "broken"
    for command in (["status"], ["start"], ["up", "--detach"]):
        assert program.main([*command, "--name", "a"]) == 1
        assert "cluster.json cannot be read" in capsys.readouterr().err
    assert program.main(["down", "--name", "a"]) == 0
    assert not own_home.exists()


def test_down_leaves_what_is_not_ours(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = stopped("a")
    (root / "notes").write_text("mine")
    assert program.main(["down", "--name", "a"]) == 0
    assert "is still there" in capsys.readouterr().out
    assert [path.name for path in root.iterdir()] == ["notes"]
    (own_home / "documents" / "data").mkdir(parents=True)
    assert program.main(["down", "--name", "documents"]) == 1
    assert program.main(["up", "--name", "documents", "--detach"]) == 2
    assert (own_home / "documents" / "data").is_dir()


def lines_of(count: int) -> list[str]:
    return [
        json.dumps({"time": "T", "level": "info", "logger": "x", "message": f"line {number}"})
        for number in range(count)
    ]


def test_logs(capsys: pytest.CaptureFixture[str]) -> None:
    root = stopped("a")
    path = root / "logs" / "controller-manager-1.log"
    path.with_name(f"{path.name}.1").write_text("\n".join(lines_of(2)) + "\n")
    path.write_text("\n".join(lines_of(3)) + "\nKilled\n")
    logs = ["logs", "controller-manager-1", "--name", "a"]
    assert program.main(logs) == 0
    assert capsys.readouterr().out.count("line ") == 5
    for tail, count in ((0, 0), (1, 1), (4, 4), (100, 6)):
        assert program.main([*logs, "--tail", str(tail)]) == 0
        assert capsys.readouterr().out.count("\n") == count
    assert program.main([*logs, "-o", "json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[-1] == {"message": "Killed"}
    assert program.main([*logs, "--tail", "-1"]) == 2
    for component in ("raftkv-1", "../a", ""):
        assert program.main(["logs", component, "--name", "a"]) == 1
        assert "controller-manager-1" in capsys.readouterr().err


def test_following_loses_nothing_when_the_log_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    followed = follow(path, file)
    assert next(followed) == b""
    with path.open("ab") as log:
        log.write(b"half")
        log.flush()
        assert next(followed) == b""
        log.write(b" and whole\nlast\n")
    path.rename(tmp_path / "log.1")
    assert next(followed) == b"half and whole\n"
    path.write_bytes(b"new\n")
    assert next(followed) == b"last\n"
    assert [line for line in (next(followed) for _ in range(3)) if line] == [b"new\n"]
    followed.close()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    root = stopped("a")
    (root / "logs" / "supervisor.log").write_text("\n".join(lines_of(20_000)) + "\n")
    command = f"{sys.executable} -m k8slite.cli.main logs supervisor --name a"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_outputs_are_no_error() -> None:
    stopped("a")
    for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
        command = f"{sys.executable} -m k8slite.cli.main list {closed}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")


def test_an_image_is_loaded_listed_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped("a")
    layer = archives.tar(archives.member("hello", b"world"))
    path = archives.docker_archive(tmp_path / "image.tar", [layer], "greeter:1")
    for command in ("load", str(path)), ("list", "-o", "json"), ("list",), ("rm", "greeter:1"):
        assert program.main(["image", *command, "--name", "a"]) == 0
        assert "greeter:1" in capsys.readouterr().out
    assert program.main(["image", "list", "--name", "a"]) == 0
    assert "busybox" in capsys.readouterr().err


def test_an_archive_that_is_none_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped("a")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "garbage.tar").write_bytes(os.urandom(5000))
    (tmp_path / "directory").mkdir()
    for name in ("empty", "garbage.tar", "directory", "missing"):
        assert program.main(["image", "load", str(tmp_path / name), "--name", "a"]) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
    assert program.main(["image", "list", "--name", "a", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert program.main(["image", "rm", "nothing", "--name", "a"]) == 1


def test_commands_start_without_an_event_loop() -> None:
    code = "import sys, k8slite.cli.main; print({'trio', 'ssl', 'cryptography'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (200, "3m20s"), (660, "11m"), (7200, "120m"),
     (3 * 3600 + 300, "3h5m"), (10 * 3600, "10h"), (72 * 3600, "3d")],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_small_words() -> None:
    assert (several(1, "node"), several(2, "node"), several(0, "node")) == (
        "1 node", "2 nodes", "0 nodes",
    )  # fmt: skip
    assert (bytes_of(0), bytes_of(37_400_000)) == ("-", "37 MB")
