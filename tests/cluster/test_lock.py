"""The lock: one holder, handed over, given back by death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k8slite.cluster import lock


def test_one_has_it_and_others_are_told_who(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not lock.is_held(path)
    with lock.take(path) as mine:
        assert lock.is_held(path)
        with pytest.raises(lock.Held) as told:
            lock.take(path)
        assert told.value.pid == os.getpid()
        mine.name_holder(4711)
        assert lock.holder(path) == 4711
    assert not lock.is_held(path)


def test_looking_never_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock.take(path).close()
    for _ in range(100):
        assert not lock.is_held(path)
        lock.take(path).close()


def test_it_is_handed_over_and_goes_with_its_last_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    mine = lock.take(path)
    heir = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[mine.fd],
    )
    mine.close()
    try:
        assert lock.is_held(path)
    finally:
        heir.send_signal(signal.SIGKILL)
        heir.communicate()
    assert not lock.is_held(path)


def test_one_that_was_deleted_meanwhile_guards_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.take(path):
        path.unlink()
        assert not lock.is_held(path)
        with lock.take(path):
            assert lock.is_held(path)


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert not lock.is_held(tmp_path / "no" / "lock")
    assert lock.holder(tmp_path / "no" / "lock") == 0
    with pytest.raises(FileNotFoundError):
        lock.take(tmp_path / "no" / "lock")
