"""Members that are added and removed while real processes serve."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.raftkv_cli.support import PATIENCE, Member, raftkv, raftkv_process, running
from tests.server.support import free_addresses


def test_grow_move_shrink(tmp_path: Path) -> None:
    ports = free_addresses(2)
    first = Member(tmp_path / "m1", "--name", "m1", "--peers", f"m1={ports[0]}", "--tick", "0.02")
    with running(first):
        raftkv("put", "k", "v", endpoints=first.client)
        second = Member(tmp_path / "m2", "--name", "m2", "--join", first.client, "--tick", "0.02")
        uninvited = raftkv_process(*second.command[3:])
        assert uninvited.returncode == 2
        assert "raftkv member add m2 HOST:PORT" in uninvited.stderr
        added = raftkv("member", "add", "m2", str(ports[1]), endpoints=first.client)
        assert f"--join {first.client}" in added.stdout, added.stderr
        with running(second):
            both = f"{first.client},{second.client}"
            wait_members(both, ["m1", "m2"])
            moved = raftkv("member", "move-leader", "m2", endpoints=both)
            assert moved.returncode == 0, moved.stderr
            assert raftkv("get", "k", endpoints=second.client).stdout == "v\n"
            assert raftkv("member", "remove", "m1", endpoints=second.client).returncode == 0
            assert first.process is not None
            assert first.process.wait(PATIENCE) == 1
            assert "permanently removed" in first.log.read_text()
            assert "Traceback" not in first.log.read_text()
            wait_members(second.client, ["m2"])
            assert raftkv("put", "k", "w", endpoints=second.client).returncode == 0
            again = raftkv_process(*first.command[3:])
            assert again.returncode == 1
            assert "permanently removed" in again.stderr
            unknown = raftkv("member", "remove", "m7", endpoints=second.client)
            assert (unknown.returncode, "'m7'" in unknown.stderr) == (2, True)


def wait_members(endpoints: str, names: list[str]) -> None:
    """Until exactly these are voters."""
    deadline = time.monotonic() + PATIENCE
    while True:
        shown = raftkv("member", "list", "-o", "json", endpoints=endpoints)
        rows = json.loads(shown.stdout) if shown.returncode == 0 else []
        if [row["name"] for row in rows if not row["learner"]] == names:
            return
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
