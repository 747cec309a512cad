"""`raftkv serve` as a process: signals, kill -9, damage, a whole cluster."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import trio

from raftkv.client import open_client
from raftkv.errors import UnknownOutcome
from raftkv.host import parse_address
from raftkv.os_host import OsHost
from tests.certificates import Authority
from tests.raftkv_cli.support import Member, raftkv, raftkv_process, running
from tests.server.support import free_addresses


def put_until_killed(address: str, acknowledged: list[bytes], enough: threading.Event) -> None:
    """Many writers at once; every key that was acknowledged is in the list."""

    async def writer(kv: object, number: int) -> None:
        for count in range(100_000):
            key = b"%d/%d" % (number, count)
            await kv.put(key, b"v")  # type: ignore[attr-defined]  # a KvClient
            acknowledged.append(key)
            if len(acknowledged) >= 2_000:
                enough.set()

    async def main() -> None:
        host = OsHost()
        with trio.move_on_after(30):
            async with open_client([parse_address(address)], host.net, rng=host.rng) as kv:
                async with trio.open_nursery() as nursery:
                    for number in range(32):
                        nursery.start_soon(writer, kv, number)

    try:
        trio.run(main)
    except* UnknownOutcome:
        pass


def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    member = Member(tmp_path / "data", "--snapshot-entries", "20")
    acknowledged: list[bytes] = []
    enough = threading.Event()
    with running(member):
        load = threading.Thread(target=put_until_killed, args=(member.client, acknowledged, enough))
        load.start()
        assert enough.wait(30)
        member.kill()
        load.join(30)
        member.start()
        member.wait_serving()
        there = raftkv("get", "", "--from-key", "--keys-only", endpoints=member.client)
    assert not {key.decode() for key in acknowledged} - set(there.stdout.splitlines())


def test_sigterm_is_graceful_and_data_stays(tmp_path: Path) -> None:
    member = Member(tmp_path / "data")
    with running(member):
        raftkv("put", "k", "v", endpoints=member.client)
        assert member.kill(signal.SIGTERM) == 0
        member.start()
        member.wait_serving()
        assert raftkv("get", "k", endpoints=member.client).stdout == "v\n"
        assert member.kill(signal.SIGINT) == 0
    assert "Traceback" not in member.log.read_text()


def test_address_in_use_is_named(tmp_path: Path) -> None:
    member = Member(tmp_path / "data")
    with running(member):
        second = raftkv_process(
            "serve", "--data-dir", str(tmp_path / "other"), "--client-listen", member.client
        )
    assert second.returncode == 1
    assert "in use" in second.stderr
    assert member.client in second.stderr
    assert "Traceback" not in second.stderr


def test_damaged_log_is_named(tmp_path: Path) -> None:
    member = Member(tmp_path / "data")
    with running(member):
        for number in range(3):
            raftkv("put", "k", "v" * 100 * number, endpoints=member.client)
    (segment,) = (tmp_path / "data").glob("*.wal")
    damaged = bytearray(segment.read_bytes())
    damaged[len(damaged.rstrip(b"\0")) // 2] ^= 1  # what is behind it is only reserved
    segment.write_bytes(damaged)
    ended = raftkv_process(
        "serve", "--data-dir", str(tmp_path / "data"), "--client-listen", member.client
    )
    assert ended.returncode == 1
    assert segment.name in ended.stderr
    assert "is damaged at byte" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_three_members_with_tls(tmp_path: Path) -> None:
    ca, certificate, key = Authority(tmp_path / "pki").files("member")
    tls = ("--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key)
    ports = free_addresses(3)
    peers = ",".join(f"m{number}={address}" for number, address in enumerate(ports, 1))
    members = [
        Member(tmp_path / f"m{n}", "--name", f"m{n}", "--peers", peers, "--tick", "0.05", *tls)
        for n in (1, 2, 3)
    ]
    endpoints = ",".join(member.client for member in members)
    try:
        for member in members:
            member.start()
        assert raftkv("put", "k", "v", "--timeout", "20", *tls, endpoints=endpoints).stdout
        listed = raftkv("member", "list", *tls, endpoints=endpoints).stdout.splitlines()
        leader = next(line for line in listed if line.endswith("leader")).split()[1]
        members[int(leader[1]) - 1].kill()
        shown = raftkv("get", "k", "--timeout", "20", *tls, endpoints=endpoints)
        assert shown.stdout == "v\n", shown.stderr
        status = raftkv("status", *tls, endpoints=endpoints)
        assert status.returncode == 3, "one does not answer"
        assert "does not answer" in status.stdout
    finally:
        for member in members:
            if member.process is not None and member.process.poll() is None:
                member.kill()


def test_without_fsync_only_when_called_unsafe(tmp_path: Path) -> None:
    member = Member(tmp_path / "data", "--unsafe-no-fsync")
    with running(member):
        assert raftkv("put", "a", "1", endpoints=member.client).returncode == 0
    assert "acknowledged writes are lost if this machine stops" in member.log.read_text()
