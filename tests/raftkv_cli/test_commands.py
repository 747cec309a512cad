"""Every command against a real member: what it prints, and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.raftkv_cli.support import (
    COMMAND,
    PATIENCE,
    Member,
    environment,
    raftkv,
    raftkv_process,
    running,
)


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    one = Member(tmp_path_factory.mktemp("raftkv") / "data", "--tick", "0.05")
    with running(one):
        yield one


def test_put_get_del(member: Member) -> None:
    at = member.client
    assert raftkv("put", "a/1", "one", endpoints=at).stdout.startswith("revision ")
    assert raftkv("put", "a/2", "-", endpoints=at, data=b"\xff\x00").returncode == 0
    assert raftkv("get", "a/1", endpoints=at).stdout == "one\n"
    assert raftkv("get", "a/", "--prefix", "--keys-only", endpoints=at).stdout == "a/1\na/2\n"
    assert raftkv("get", "a/", "--prefix", "--count", endpoints=at).stdout == "2\n"
    found = json.loads(raftkv("get", "a/2", "-o", "json", endpoints=at).stdout)
    assert found["kvs"][0]["value"] == {"base64": "/wA="}
    assert raftkv("del", "a/", "--prefix", endpoints=at).stdout == "deleted 2\n"
    gone = raftkv("get", "a/1", endpoints=at)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == "raftkv: a/1 is not there\n"
    assert raftkv("del", "a/1", endpoints=at).returncode == 1


def test_leases(member: Member) -> None:
    at = member.client
    lease = raftkv("lease", "grant", "60", endpoints=at).stdout.strip()
    assert raftkv("put", "mine", "x", "--lease", lease, endpoints=at).returncode == 0
    assert "keys: mine" in raftkv("lease", "ttl", lease, endpoints=at).stdout
    assert lease in raftkv("lease", "list", endpoints=at).stdout
    assert "60 s" in raftkv("lease", "keep-alive", lease, "--once", endpoints=at).stdout
    assert raftkv("lease", "revoke", lease, endpoints=at).returncode == 0
    assert raftkv("get", "mine", endpoints=at).returncode == 1
    refused = raftkv("lease", "revoke", lease, endpoints=at)
    assert (refused.returncode, refused.stderr) == (
        1,
        "raftkv: etcdserver: requested lease not found\n",
    )


def test_status_and_members(member: Member) -> None:
    lines = raftkv("status", endpoints=member.client).stdout.splitlines()
    assert lines[0].split()[:3] == ["ADDRESS", "NAME", "ROLE"]
    assert lines[1].split()[:3] == [member.client, "member-1", "leader"]
    status = json.loads(raftkv("status", "-o", "json", endpoints=member.client).stdout)
    assert status[member.client]["memory"] > 1_000_000
    members = json.loads(raftkv("member", "list", "-o", "json", endpoints=member.client).stdout)
    assert [(each["id"], each["leader"]) for each in members] == [(1, True)]


def test_watch_prints_as_it_happens(member: Member) -> None:
    at = member.client
    put = json.loads(raftkv("put", "w", "1", "-o", "json", endpoints=at).stdout)
    with subprocess.Popen(
        [*COMMAND, "watch", "w", "--revision", str(put["revision"]), "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(at),
    ) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["kv"]["value"] == "1"
        raftkv("put", "w", "2", endpoints=at)
        assert json.loads(watching.stdout.readline())["kv"]["value"] == "2"
        watching.send_signal(signal.SIGINT)
        _, complaint = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, complaint) == (130, b"")


def test_compaction_is_told(member: Member) -> None:
    at = member.client
    revision = json.loads(raftkv("put", "c", "1", "-o", "json", endpoints=at).stdout)["revision"]
    assert raftkv("compact", str(revision), endpoints=at).returncode == 0
    late = raftkv("get", "c", "--revision", str(revision - 1), endpoints=at)
    assert (late.returncode, "has been compacted" in late.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "COMMAND"),
        (("get",), 2, "key"),
        (("get", "k", "--prefix", "--from-key"), 2, "not allowed with"),
        (("get", "k", "--endpoints", "nonsense"), 2, "HOST:PORT"),
        (("get", "k", "--endpoints", "127.0.0.1:1", "--timeout", "0.3"), 3, "no answer within"),
        (("put", "k", "v", "--tls-ca", "/nowhere"), 2, "belong together"),
        (("serve",), 2, "--data-dir"),
        (("serve", "--data-dir", "/proc/nowhere/x"), 1, "/proc/nowhere/x"),
        (("serve", "--data-dir", "x", "--peers", "m1"), 2, "NAME=HOST:PORT"),
        (("serve", "--data-dir", "x", "--peers", "m1=h:1"), 2, "--name"),
        (("serve", "--data-dir", "x", "--name", "z", "--peers", "m1=h:1"), 2, "not in --peers"),
        (("serve", "--data-dir", "x", "--name", "a1", "--peers", "a1=h:1,b1=h:2"), 2, "same id"),
        (("serve", "--data-dir", "x", "--client-listen", "here"), 2, "--client-listen"),
    ],
)
def test_mistakes_get_a_sentence_and_no_stack_trace(
    arguments: tuple[str, ...], code: int, says: str
) -> None:
    ended = raftkv(*arguments)
    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("command", [(), ("serve",), ("get",), ("watch",), ("lease",), ("member",)])
def test_help_teaches(command: tuple[str, ...]) -> None:
    ended = (raftkv_process if not command else raftkv)(*command, "--help")
    assert ended.returncode == 0
    assert "usage: raftkv" in ended.stdout
