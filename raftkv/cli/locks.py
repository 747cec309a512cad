"""`raftkv lock` and `raftkv elect`: one at a time, with the revision that fences.

Owns: the process that runs under a lock. Its environment holds what it needs to prove in a
transaction that it still has the lock: nothing else is proof, for any process may be paused for
longer than its lease lives.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from raftkv.cli.output import UsageError, json_bytes, text, write, write_json
from raftkv.cli.requests import add_request
from raftkv.client import KvClient, prefix_end
from raftkv.client.election import Leadership, current_leader, open_candidacy

__all__ = ["add_commands"]

LOST = 5
"""Exit code when the lock may have gone to somebody else."""
INTERRUPTED = 130

LOCK = """\
Wait for the lock, then print its key and revision and hold it until interrupted; or run a command
under it, with RAFTKV_LOCK_KEY and RAFTKV_LOCK_REVISION in its environment, and exit as it does:

  raftkv lock --ttl 30 NAME -- COMMAND ARGUMENT...

The revision fences: it is greater than that of every holder before. A command that writes to the
store should do so with `raftkv txn --if "create $RAFTKV_LOCK_KEY = $RAFTKV_LOCK_REVISION" ...`.
When the lease is lost the command is ended (SIGTERM), and the exit code is 5.
"""

ELECT = """\
Stand for election under NAME and, once elected, print key and revision and lead until interrupted.
With --observe, only show who leads, at every change.
"""


def add_commands(commands: Any) -> None:
    lock = add_request(commands, "lock", "hold a lock, or run a command under it", _lock)
    lock.description = LOCK
    lock.formatter_class = argparse.RawDescriptionHelpFormatter
    lock.set_defaults(endless=True)
    lock.add_argument("name", help="the lock's name: a prefix of keys")
    lock.add_argument("command", nargs=argparse.REMAINDER, help="and its arguments")
    elect = add_request(commands, "elect", "stand for election, or see who leads", _elect)
    elect.description = ELECT
    elect.formatter_class = argparse.RawDescriptionHelpFormatter
    elect.set_defaults(endless=True)
    elect.add_argument("name", help="the election's name: a prefix of keys")
    elect.add_argument("value", nargs="?", help="what the others see of the leader")
    elect.add_argument("--observe", action="store_true", help="take no part")
    for parser in (lock, elect):
        parser.add_argument(
            "--ttl", type=int, default=10, metavar="SECONDS", help="of the lease (default 10)"
        )


async def _lock(kv: KvClient, arguments: argparse.Namespace) -> int:
    name = os.fsencode(arguments.name)

    command: list[str] = arguments.command
    if command[:1] == ["--"]:
        command = command[1:]
    elif command and command[0].startswith("-"):
        raise UsageError(f"{command[0]} stands behind the lock's name: flags go before it")

    async def hold() -> int:
        async with open_candidacy(kv, name, b"", ttl=arguments.ttl) as held:
            if command:
                return await _run_under(held, command)
            return await _hold(arguments, held)

    return await _until_interrupted(hold)


async def _run_under(held: Leadership, command: list[str]) -> int:
    environment = {
        **os.environ,
        "RAFTKV_LOCK_KEY": os.fsdecode(held.key),
        "RAFTKV_LOCK_REVISION": str(held.revision),
    }
    lost = False

    async def end_when_lost(process: trio.Process) -> None:
        nonlocal lost
        await held.lease.lost.wait()
        lost = True
        process.send_signal(signal.SIGTERM)

    async with trio.open_nursery() as nursery:
        try:
            process: trio.Process = await trio.lowlevel.open_process(command, env=environment)
        except OSError as error:
            raise UsageError(f"{command[0]} can't be run: {error.strerror}") from error
        nursery.start_soon(end_when_lost, process)
        try:
            code = await process.wait()
        except trio.Cancelled:
            process.send_signal(signal.SIGTERM)
            with trio.CancelScope(shield=True):
                await process.wait()
            raise
        nursery.cancel_scope.cancel()
    if lost:
        sys.stderr.write("raftkv: the lease was lost, and with it the lock\n")
        return LOST
    return code if code >= 0 else 128 - code


async def _elect(kv: KvClient, arguments: argparse.Namespace) -> int:
    name = os.fsencode(arguments.name)
    if arguments.observe:
        await _observe(kv, arguments, name)
    if arguments.value is None:
        raise UsageError("elect needs a VALUE to stand for election, or --observe")
    value = os.fsencode(arguments.value)

    async def lead() -> int:
        async with open_candidacy(kv, name, value, ttl=arguments.ttl) as led:
            return await _hold(arguments, led)

    return await _until_interrupted(lead)


async def _observe(kv: KvClient, arguments: argparse.Namespace, name: bytes) -> None:
    """Print the leader at every change, for ever."""
    start = name + b"/"
    shown: bytes | None = b""
    async with kv.watch(start, prefix_end(start)) as watch:
        while True:
            leader = await current_leader(kv, name)
            key = leader.key if leader else None
            if key != shown:
                shown = key
                value = leader.value if leader else b""
                revision = leader.create_revision if leader else 0
                if arguments.output == "json":
                    named = json_bytes(value) if leader else None
                    write_json({"leader": named, "revision": revision})
                else:
                    write(f"{revision}\t{text(value)}" if leader else "nobody leads")
                sys.stdout.flush()
            await watch.__anext__()


async def _hold(arguments: argparse.Namespace, held: Leadership) -> int:
    """Say that it is held, and then nothing as long as that is so."""
    if arguments.output == "json":
        write_json({"key": json_bytes(held.key), "revision": held.revision})
    else:
        write(f"{text(held.key)}\t{held.revision}")
    sys.stdout.flush()
    await held.lease.lost.wait()
    sys.stderr.write("raftkv: the lease was lost, and with it what it stood for\n")
    return LOST


async def _until_interrupted(hold: Callable[[], Awaitable[int]]) -> int:
    """SIGINT and SIGTERM end it in order, so that what is held is given up at once."""
    code = INTERRUPTED

    async def run() -> None:
        nonlocal code
        code = await hold()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(run)
            async for _ in signals:
                nursery.cancel_scope.cancel()
    return code
