"""Debian's etcdctl against members of ours: every command that its users type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.etcd.processes import Members, etcd, etcdctl, raftkv
from tests.ports import free_port

pytestmark = [pytest.mark.tool("etcdctl"), pytest.mark.slow]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with raftkv(tmp_path_factory.mktemp("etcdctl"), members=3) as addresses:
        yield addresses


def as_json(members: Members, *arguments: str) -> Any:
    return json.loads(etcdctl(members, *arguments, "-w", "json"))


@contextmanager
def etcdctl_running(members: Members, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One that goes on until it is interrupted."""
    command = ["etcdctl", "--endpoints", ",".join(members), *arguments]
    environment = {**os.environ, "ETCDCTL_API": "3"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


# --- keys ---------------------------------------------------------------------------------------


def test_put_and_get_with_all_flags(members: Members) -> None:
    for key, value in (("g/a", "3"), ("g/b", "1"), ("g/c", "2")):
        assert etcdctl(members, "put", key, value) == "OK\n"
    assert etcdctl(members, "put", "g/a", "4", "--prev-kv") == "OK\ng/a\n3\n"
    get = ("get", "g/", "--prefix")
    assert etcdctl(members, *get) == "g/a\n4\ng/b\n1\ng/c\n2\n"
    assert etcdctl(members, *get, "--limit=2", "--print-value-only") == "4\n1\n"
    assert etcdctl(members, *get, "--keys-only").split() == ["g/a", "g/b", "g/c"]
    ordered = (*get, "--sort-by=VALUE", "--order=DESCEND", "--print-value-only")
    assert etcdctl(members, *ordered) == "4\n2\n1\n"
    assert etcdctl(members, "get", "g/b", "g/d", "--print-value-only") == "1\n2\n"
    assert "g/c" in etcdctl(members, "get", "g/c", "--from-key", "--consistency=s")
    found = as_json(members, "get", "g/a")["kvs"][0]
    earlier = f"--rev={found['create_revision']}"
    assert etcdctl(members, "get", "g/a", earlier, "--print-value-only") == "3\n"
    assert '"Count" : 3' in etcdctl(members, *get, "--limit=1", "--write-out=fields")
    assert etcdctl(members, "put", "g/a", "--ignore-value", "--prev-kv") == "OK\ng/a\n4\n"
    assert etcdctl(members, "del", "g/", "--prefix", "--prev-kv").startswith("3\ng/a\n4\n")
    assert etcdctl(members, "get", "g/", "--prefix") == ""


def test_txn(members: Members) -> None:
    etcdctl(members, "put", "t", "one")
    text = 'value("t") = "one"\n\nput t two\nget t\n\ndel t\n\n'
    assert etcdctl(members, "txn", given=text) == "SUCCESS\n\nOK\n\nt\ntwo\n"
    assert etcdctl(members, "txn", given=text) == "FAILURE\n\n1\n"


def test_compaction(members: Members) -> None:
    etcdctl(members, "put", "c", "1")
    revision = as_json(members, "put", "c", "2")["header"]["revision"]
    assert etcdctl(members, "compaction", str(revision)) == f"compacted revision {revision}\n"
    with pytest.raises(AssertionError, match="required revision has been compacted"):
        etcdctl(members, "get", "c", f"--rev={revision - 1}")
    with pytest.raises(AssertionError, match="required revision is a future revision"):
        etcdctl(members, "compaction", str(revision + 1000), "--physical")


def test_watch(members: Members) -> None:
    revision = as_json(members, "put", "w", "1")["header"]["revision"]
    watch = ("watch", "w", f"--rev={revision}", "--prev-kv")
    with etcdctl_running(members[:1], *watch) as process:
        assert lines(process, 3) == ["PUT", "w", "1"]
        etcdctl(members[1:2], "put", "w", "2")
        assert lines(process, 5) == ["PUT", "w", "1", "w", "2"]
        etcdctl(members[2:], "del", "w")
        assert lines(process, 5) == ["DELETE", "w", "2", "w", ""]


def test_watch_progress_on_demand(members: Members) -> None:
    revision = as_json(members, "put", "wp", "1")["header"]["revision"]
    with etcdctl_running(members[:1], "watch", "-i") as process:
        assert process.stdin is not None
        process.stdin.write("watch wp --rev=" + str(revision) + "\n")
        process.stdin.flush()
        assert lines(process, 3) == ["PUT", "wp", "1"]
        process.stdin.write("progress\n")
        process.stdin.flush()
        assert lines(process, 1)[0].startswith("progress notify: ")


# --- leases -------------------------------------------------------------------------------------


def test_leases(members: Members) -> None:
    granted = etcdctl(members, "lease", "grant", "100")
    lease = granted.split()[1]
    assert granted == f"lease {lease} granted with TTL(100s)\n"
    etcdctl(members, "put", "l", "1", f"--lease={lease}")
    told = etcdctl(members, "lease", "timetolive", lease, "--keys")
    assert told.startswith(f"lease {lease} granted with TTL(100s), remaining(")
    assert told.endswith("attached keys([l])\n")
    assert lease in etcdctl(members, "lease", "list")
    renewed = etcdctl(members, "lease", "keep-alive", "--once", lease)
    assert renewed == f"lease {lease} keepalived with TTL(100)\n"
    with etcdctl_running(members, "lease", "keep-alive", lease) as process:
        assert lines(process, 1) == [f"lease {lease} keepalived with TTL(100)"]
    assert etcdctl(members, "lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert etcdctl(members, "get", "l") == ""
    gone = etcdctl(members, "lease", "timetolive", lease)
    assert gone == f"lease {lease} already expired\n"
    with pytest.raises(AssertionError, match="requested lease not found"):
        etcdctl(members, "lease", "keep-alive", "--once", lease)


def test_lock_and_elect(members: Members) -> None:
    assert etcdctl(members, "lock", "mutex", "echo", "held") == "held\n"
    with etcdctl_running(members, "lock", "mutex") as holder:
        (first,) = lines(holder, 1)
        assert first.startswith("mutex/")
        with etcdctl_running(members, "lock", "mutex") as waiter:
            holder.send_signal(signal.SIGINT)
            (second,) = lines(waiter, 1)
            assert second.startswith("mutex/")
            assert second != first
    with etcdctl_running(members, "elect", "office", "me") as candidate:
        key, value = lines(candidate, 2)
        assert key.startswith("office/")
        assert value == "me"
        with etcdctl_running(members, "elect", "--listen", "office") as observer:
            assert lines(observer, 2) == [key, "me"]


# --- members ------------------------------------------------------------------------------------


def test_endpoints(members: Members) -> None:
    etcdctl(members, "put", "e", "1")
    every = as_json(members[:1], "endpoint", "status", "--cluster")
    assert sorted(each["Endpoint"] for each in every) == sorted(f"http://{m}" for m in members)
    leaders = {each["Status"]["leader"] for each in every}
    assert len(leaders) == 1
    assert {each["Status"]["version"] for each in every} == {"3.6.0"}
    etcdctl(members, "endpoint", "health", "--cluster")
    hashes = as_json(members, "endpoint", "hashkv")
    assert len({(each["HashKV"]["hash"], each["HashKV"]["compact_revision"]) for each in hashes})
    assert etcdctl(members, "alarm", "list") == ""
    assert etcdctl(members, "alarm", "disarm") == ""
    assert etcdctl(members, "defrag").count("Finished defragmenting") == 3


def test_move_leader(members: Members) -> None:
    status = as_json(members, "endpoint", "status")
    leader = status[0]["Status"]["leader"]
    successor = next(
        each["Status"]["header"]["member_id"]
        for each in status
        if each["Status"]["header"]["member_id"] != leader
    )
    told = etcdctl(members, "move-leader", f"{successor:x}")
    assert told == f"Leadership transferred from {leader:x} to {successor:x}\n"
    after = as_json(members, "endpoint", "status")
    assert {each["Status"]["leader"] for each in after} == {successor}


def test_members_come_and_go(members: Members, tmp_path: Path) -> None:
    peer, client, front = free_port(), free_port(), free_port()
    url = f"--peer-urls=http://127.0.0.1:{peer}"
    added = etcdctl(members, "member", "add", "m4", url, "--learner")
    assert added.split()[:2] == ["Member", "4"]
    with pytest.raises(AssertionError, match="Peer URLs already exists"):
        etcdctl(members, "member", "add", "m5", url)
    with pytest.raises(AssertionError, match="can only promote a learner member which is in sync"):
        etcdctl(members, "member", "promote", "4")
    join = ",".join(members.native)
    command = [sys.executable, "-m", "raftkv.cli", "serve", "--name", "m4", "--join", join]
    command += ["--data-dir", str(tmp_path / "m4"), "--client-listen", f"127.0.0.1:{client}"]
    command += ["--etcd-listen", f"127.0.0.1:{front}"]
    with open(tmp_path / "m4.log", "wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        promote(members)
        row = next(row for row in as_json(members, "member", "list")["members"] if row["ID"] == 4)
        assert row["name"] == "m4"
        assert not row.get("isLearner")
        assert row["clientURLs"] == [f"http://127.0.0.1:{front}"]
        etcdctl([f"127.0.0.1:{front}"], "put", "by-m4", "1")
        assert etcdctl(members, "member", "remove", "4").startswith("Member")
        assert process.wait(30) == 1  # it was told
        with pytest.raises(AssertionError, match="member not found"):
            etcdctl(members, "member", "remove", "4")
    finally:
        process.kill()
        process.wait()


def promote(members: Members) -> None:
    """As soon as the learner has caught up."""
    for _ in range(100):
        try:
            etcdctl(members, "member", "promote", "4")
            return
        except AssertionError as error:
            if "in sync with leader" not in str(error):
                raise
    raise AssertionError("the learner did not catch up")


# --- a member by itself -------------------------------------------------------------------------


def make_history(address: list[str]) -> int:
    """Keys, a lease, a deletion and a compaction; the revision."""
    lease = etcdctl(address, "lease", "grant", "5000").split()[1]
    etcdctl(address, "put", "leased", "1", f"--lease={lease}")
    for number in range(5):
        etcdctl(address, "put", "changed", str(number))
    etcdctl(address, "put", "gone", "1")
    etcdctl(address, "del", "gone")
    etcdctl(address, "compaction", "5")
    etcdctl(address, "put", "large", "v" * 100_000)
    revision: int = as_json(address, "get", "large")["header"]["revision"]
    return revision


def history_of(address: list[str], revision: int) -> list[str]:
    """All there is at each revision that can be read, and the lease."""
    (lease,) = as_json(address, "get", "leased")["kvs"]
    told = [etcdctl(address, "lease", "timetolive", f"{lease['lease']:x}", "--keys")]
    assert "granted with TTL(5000s)" in told[0]
    for each in range(5, revision + 1):
        found = as_json(address, "get", "", "--prefix", f"--rev={each}")
        told.append(json.dumps(found["kvs"]))
    return told[1:]


@pytest.mark.tool("etcd")
def test_snapshot_goes_to_etcd_and_back(tmp_path: Path) -> None:
    saved, returned = str(tmp_path / "saved"), str(tmp_path / "returned")
    with raftkv(tmp_path / "ours") as address:
        revision = make_history(address)
        before = history_of(address, revision)
        etcdctl(address, "snapshot", "save", saved)
        etcdctl(address, "put", "changed", "after")
    status = as_json([], "snapshot", "status", saved)
    assert status["revision"] == revision

    directory = tmp_path / "theirs"
    etcdctl([], "snapshot", "restore", saved, "--data-dir", str(directory / "etcd"))
    with etcd(directory) as address:
        assert history_of([address], revision) == before
        etcdctl([address], "put", "changed", "there")
        etcdctl([address], "snapshot", "save", returned)
        after = history_of([address], revision + 1)

    command = [sys.executable, "-m", "raftkv.cli", "snapshot", "restore", returned, "--name", "m1"]
    command += ["--data-dir", str(tmp_path / "again" / "m1"), "--bump-revision", "0"]
    subprocess.run(command, check=True)
    with raftkv(tmp_path / "again") as address:
        assert history_of(address, revision + 1) == after


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    ca, certificate, key = authority.files("member")
    flags = ("--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key)
    with raftkv(tmp_path, *flags, members=3) as addresses:
        ca, certificate, key = authority.files("client")
        secure = ("--cacert", ca, "--cert", certificate, "--key", key)
        endpoints = [f"https://{address}" for address in addresses]
        for endpoint in endpoints:  # one of them leads, the others pass it on
            etcdctl([endpoint], "put", "k", endpoint, flags=secure)
        told = etcdctl(endpoints, "endpoint", "status", "--cluster", "-w", "json", flags=secure)
        assert sorted(each["Endpoint"] for each in json.loads(told)) == sorted(endpoints)
        quick = ("--command-timeout=2s", "--dial-timeout=1s")
        for stranger in (("--cacert", ca, *quick), quick):
            with pytest.raises(AssertionError, match=r"Error: "):
                etcdctl(endpoints[:1], "get", "k", flags=stranger)
