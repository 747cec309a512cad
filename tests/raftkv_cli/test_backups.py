"""Backups, damaged logs and full disks, as an operator meets them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.raftkv_cli.support import PATIENCE, Member, raftkv, running
from tests.server.support import free_addresses


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Of a store with three keys, one of them written twice and one under a lease."""
    member = Member(tmp_path / "old")
    path = tmp_path / "backup"
    with running(member):
        lease = raftkv("lease", "grant", "1000", endpoints=member.client).stdout.strip()
        for key, value in (("a", "1"), ("b", "2"), ("a", "3")):
            assert raftkv("put", key, value, endpoints=member.client).returncode == 0
        raftkv("put", "c", "4", "--lease", lease, endpoints=member.client)
        saved = raftkv("snapshot", "save", str(path), endpoints=member.client)
        assert saved.stdout == f"{path}: revision 5, 3 keys\n", saved.stderr
        hashed = json.loads(raftkv("hash", "-o", "json", endpoints=member.client).stdout)
        status = json.loads(raftkv("snapshot", "status", str(path), "-o", "json").stdout)
        assert status["hash"] == hashed[member.client]["hash"]
        assert (status["revision"], status["keys"], status["leases"]) == (5, 3, 1)
    return path


def test_restore_of_one_member(tmp_path: Path, backup: Path) -> None:
    new = Member(tmp_path / "new", "--name", "m1")
    restored = raftkv(
        "snapshot", "restore", str(backup), "--data-dir", str(tmp_path / "new"), "--name", "m1"
    )
    assert restored.returncode == 0, restored.stderr
    with running(new):
        got = json.loads(raftkv("get", "", "--prefix", "-o", "json", endpoints=new.client).stdout)
        assert {pair["key"]: pair["value"] for pair in got["kvs"]} == {"a": "3", "b": "2", "c": "4"}
        assert got["revision"] == 1_000_000_005
        old = raftkv("get", "a", "--revision", "5", endpoints=new.client)
        assert (old.returncode, "compacted" in old.stderr) == (1, True)
        assert len(raftkv("lease", "list", endpoints=new.client).stdout.split()) == 1
        raftkv("put", "d", "5", endpoints=new.client)
        new.kill()
        new.start()
        new.wait_serving()
        assert raftkv("get", "d", endpoints=new.client).stdout == "5\n"
    again = raftkv("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / "new"))
    assert (again.returncode, "is not empty" in again.stderr) == (2, True)


def test_restore_of_three_members_beside_an_old_one(tmp_path: Path, backup: Path) -> None:
    """The old member is started by mistake, under the same cluster name, as one of the new ones."""
    ports = free_addresses(3)
    peers = ",".join(f"m{number}={port}" for number, port in enumerate(ports, 1))
    for number in (1, 2):
        made = raftkv(
            *("snapshot", "restore", str(backup), "--data-dir", str(tmp_path / f"m{number}")),
            *("--name", f"m{number}", "--peers", peers, "--bump-revision", "0"),
        )
        assert made.returncode == 0, made.stderr
    options = ("--peers", peers, "--tick", "0.05")
    members = [Member(tmp_path / f"m{n}", "--name", f"m{n}", *options) for n in (1, 2, 3)]
    endpoints = ",".join(member.client for member in members[:2])
    with running(*members):
        got = raftkv("get", "a", "--timeout", "20", endpoints=endpoints)
        assert got.stdout == "3\n", got.stderr
        assert raftkv("get", "a", "--revision", "2", endpoints=endpoints).stdout == "1\n"
        assert raftkv("hash", endpoints=endpoints).returncode == 0
        alone = raftkv("get", "a", "--timeout", "1", endpoints=members[2].client)
        assert alone.returncode == 3
    assert "restored from a backup" in members[2].log.read_text()


def test_damaged_backup_is_refused(tmp_path: Path, backup: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 1
    backup.write_bytes(data)
    for command in (("status", str(backup)), ("restore", str(backup), "--data-dir", "x")):
        ended = raftkv("snapshot", *command)
        assert ended.returncode == 1
        assert "checksum does not match" in ended.stderr
    missing = raftkv("snapshot", "status", str(tmp_path / "nothing"))
    assert (missing.returncode, "can't be read" in missing.stderr) == (2, True)


def test_wal_verify(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    member = Member(directory)
    with running(member):
        for number in range(3):
            raftkv("put", "k", "v" * 100 * number, endpoints=member.client)
    sound = raftkv("wal", "verify", "--data-dir", str(directory))
    assert (sound.returncode, "the log is sound" in sound.stdout) == (0, True), sound.stderr
    (segment,) = directory.glob("*.wal")
    damaged = bytearray(segment.read_bytes())
    damaged[300] ^= 1
    segment.write_bytes(damaged)
    found = raftkv("wal", "verify", "--data-dir", str(directory))
    assert found.returncode == 1
    assert f"{segment.name} is damaged at byte" in found.stderr
    assert "raftkv snapshot restore" in found.stderr
    assert "raftkv member add" in found.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for little."""
    directory = tmp_path / "small"
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", "size=400k", "raftkv-test"]
    subprocess.run(["mount", *options, str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.root
def test_full_disk_ends_the_member_and_loses_nothing(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200 * 1024))
    member = Member(small_disk / "data")
    member.log = small_disk.parent / "log"
    acknowledged = []
    with running(member):
        assert member.process is not None
        for number in range(100):
            put = raftkv("put", f"k{number}", "v" * 10_000, endpoints=member.client)
            if put.returncode:
                assert put.returncode in (3, 4), put.stderr
                break
            acknowledged.append(f"k{number}")
        assert member.process.wait(PATIENCE) == 1
        said = member.log.read_text()
        assert "the disk is full" in said
        assert "nothing that was acknowledged is lost" in said
        assert "Traceback" not in said
        ballast.unlink()
        member.start()
        member.wait_serving()
        keys = raftkv("get", "k", "--prefix", "--keys-only", endpoints=member.client).stdout.split()
        assert acknowledged
        assert not set(acknowledged) - set(keys)
        assert raftkv("put", "more", "v", endpoints=member.client).returncode == 0
