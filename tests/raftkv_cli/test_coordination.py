"""`raftkv txn`, `lock` and `elect` as scripts use them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from raftkv.cli.output import UsageError
from raftkv.cli.transactions import comparison, operation, paragraphs
from tests.raftkv_cli.support import COMMAND, PATIENCE, Member, environment, raftkv, running


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    one = Member(tmp_path_factory.mktemp("raftkv") / "data", "--tick", "0.05")
    with running(one):
        yield one


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("value k = v", [b"k", None, "value", "=", b"v"]),
        ("value 'a b' != 'c d'", [b"a b", None, "value", "!=", b"c d"]),
        ("mod k < 7", [b"k", None, "mod", "<", 7]),
        ("lease k = ff", [b"k", None, "lease", "=", 255]),
        ("exists k", [b"k", None, "create", ">", 0]),
        ("missing k", [b"k", None, "create", "=", 0]),
    ],
)
def test_comparisons(line: str, expected: list[object]) -> None:
    assert comparison(line) == expected


@pytest.mark.parametrize("line", ["", "k = v", "value k == v", "mod k = x", "value k = 'v"])
def test_what_is_no_comparison(line: str) -> None:
    with pytest.raises(UsageError):
        comparison(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("put k v", ["put", b"k", b"v", 0, False]),
        ("put k v --lease a", ["put", b"k", b"v", 10, False]),
        ("get k", ["range", b"k", None, 0, 0, False, False]),
        ("get --prefix k", ["range", b"k", b"l", 0, 0, False, False]),
        ("del k --prefix", ["delete", b"k", b"l", False]),
    ],
)
def test_operations(line: str, expected: list[object]) -> None:
    assert operation(line) == expected


@pytest.mark.parametrize("line", ["", "put k", "put k v w", "take k", "del", "put k v --lease x"])
def test_what_is_no_operation(line: str) -> None:
    with pytest.raises(UsageError):
        operation(line)


def test_paragraphs() -> None:
    assert paragraphs("") == [[], [], []]
    assert paragraphs("a\n# no\nb\n\nc\n\n\n") == [["a", "b"], ["c"], []]
    assert paragraphs("\nput k v\n") == [[], ["put k v"], []]
    with pytest.raises(UsageError):
        paragraphs("a\n\nb\n\nc\n\nd")


def test_txn_with_flags_and_from_standard_input(member: Member) -> None:
    at = member.client
    flags = ("--if", "missing t", "--then", "put t 1", "--then", "put u 1", "--else", "get t")
    first = raftkv("txn", *flags, endpoints=at)
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, "succeeded"), first.stderr
    second = raftkv("txn", *flags, endpoints=at)
    assert (second.returncode, second.stdout) == (1, "failed\nt\t1\n")
    piped = raftkv("txn", "-o", "json", endpoints=at, data=b"value t = 1\n\ndel t\nget u\n\n")
    shown = json.loads(piped.stdout)
    assert (piped.returncode, shown["succeeded"]) == (0, True)
    assert shown["results"][0]["deleted"] == 1
    assert shown["results"][1]["kvs"][0]["value"] == "1"
    nonsense = raftkv("txn", "--if", "t is 1", endpoints=at)
    assert (nonsense.returncode, "is not a comparison" in nonsense.stderr) == (2, True)


def start(member: Member, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, env=environment(member.client), text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def test_lock_is_held_by_one_and_fences(member: Member) -> None:
    holder = start(member, "lock", "l")
    waiting = None
    try:
        key, revision = first_line(holder).split()
        script = "echo $RAFTKV_LOCK_KEY $RAFTKV_LOCK_REVISION; exit 7"
        waiting = start(member, "lock", "l", "--", "sh", "-c", script)
        fenced = ("txn", "--if", f"create {key} = {revision}", "--then", "put guarded x")
        assert raftkv(*fenced, endpoints=member.client).returncode == 0
        deadline = time.monotonic() + PATIENCE
        while raftkv("get", "l/", "--prefix", "--count", endpoints=member.client).stdout != "2\n":
            assert time.monotonic() < deadline
        assert waiting.poll() is None
        holder.send_signal(signal.SIGINT)
        assert holder.wait(PATIENCE) == 130
        next_key, next_revision = first_line(waiting).split()
        assert waiting.wait(PATIENCE) == 7
        assert next_key != key
        assert int(next_revision) > int(revision)
        assert raftkv(*fenced, endpoints=member.client).returncode == 1
    finally:
        end(holder, *([waiting] if waiting else []))


def test_lost_lock_ends_the_command(member: Member) -> None:
    holder = start(member, "lock", "--ttl", "2", "m", "--", "sleep", "100")
    try:
        misplaced = raftkv("lock", "m", "--ttl", "2", endpoints=member.client)
        assert (misplaced.returncode, "go before it" in misplaced.stderr) == (2, True)
        deadline = time.monotonic() + PATIENCE
        while raftkv("get", "m/", "--prefix", "--count", endpoints=member.client).stdout != "1\n":
            assert time.monotonic() < deadline
        for lease in raftkv("lease", "list", endpoints=member.client).stdout.split():
            raftkv("lease", "revoke", lease, endpoints=member.client)
        assert holder.wait(PATIENCE) == 5
    finally:
        end(holder)


def test_election_is_seen_by_observers(member: Member) -> None:
    observer = start(member, "elect", "e", "--observe")
    leader = None
    try:
        assert first_line(observer) == "nobody leads\n"
        leader = start(member, "elect", "e", "me")
        _, revision = first_line(leader).split()
        assert first_line(observer) == f"{revision}\tme\n"
        leader.send_signal(signal.SIGTERM)
        assert leader.wait(PATIENCE) == 130
        assert first_line(observer) == "nobody leads\n"
    finally:
        end(observer, *([leader] if leader else []))
