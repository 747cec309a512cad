"""The control socket: a request and its answer, whatever comes in."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from k8slite.cluster import control


async def handle(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("op") == "refuse":
        raise control.Refused("no, because")
    return {"echo": request}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(control.serve, control.listen(path), handle)
        yield
        nursery.cancel_scope.cancel()


async def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    return await trio.to_thread.run_sync(partial(control.ask, path, request))


async def test_requests_are_answered_also_below_a_very_long_path(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100) / ("y z" * 30)
    directory.mkdir(parents=True)
    async with serving(directory / "control.sock"):
        assert await ask(directory / "control.sock", {"op": "a"}) == {"echo": {"op": "a"}}
        with pytest.raises(control.Refused, match="no, because"):
            await ask(directory / "control.sock", {"op": "refuse"})


@pytest.mark.parametrize("sent", [b"garbage\n", b"[1]\n", b"\xff\xfe\n", b"\n", b"x" * 100_000])
async def test_what_is_no_request_is_refused_and_the_next_is_answered(
    tmp_path: Path, sent: bytes
) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(sent)
            answer = json.loads(await stream.receive_some(65536))
            assert "error" in answer
        assert await ask(path, {"op": "a"}) == {"echo": {"op": "a"}}


async def test_who_leaves_early_harms_nobody(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        for sent in (b"", b'{"op"', b'{"op": "a"}\n'):
            stream = await trio.open_unix_socket(str(path))
            if sent:
                await stream.send_all(sent)
            await trio.aclose_forcefully(stream)
        assert await ask(path, {"op": "a"}) == {"echo": {"op": "a"}}


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(control.NotRunning):
        control.ask(tmp_path / "control.sock", {})
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(control.NotRunning):
        control.ask(path, {})


def test_one_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "stuck.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with pytest.raises(TimeoutError):
            control.ask(path, {}, seconds=0.01)
