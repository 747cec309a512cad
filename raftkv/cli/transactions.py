"""`raftkv txn`: several reads and writes in one revision, if comparisons hold.

Owns: the language of comparisons and operations, on the command line and on standard input.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from raftkv.cli.output import UsageError, json_bytes, text, write, write_json
from raftkv.cli.requests import add_request, lease_id
from raftkv.client import KvClient, TxnResult, compare, delete_op, get_op, prefix_end, put_op
from raftkv.client.types import RangeResult

__all__ = ["add_commands", "comparison", "operation", "paragraphs"]

DESCRIPTION = """\
Do several things at once, in one revision, if all comparisons hold; else do others.

  raftkv txn --if 'missing greeting' --then 'put greeting hello' --else 'get greeting'

Without any of these flags, standard input is read: three paragraphs of lines, the comparisons, then
what to do if they hold, then what to do if not. Each may be empty; a line with # is a comment.

  comparisons            value KEY = VALUE         the value; also != < >
                         version KEY > 2           how often it was written; also create, mod (the
                                                   revisions), lease (in hexadecimal)
                         exists KEY | missing KEY
  operations             put KEY VALUE [--lease ID]
                         get KEY [--prefix]
                         del KEY [--prefix]

Words are quoted as in a shell. Exit code: 0 the comparisons held, 1 they did not.
"""

OPERATORS = ("=", "!=", "<", ">")


def add_commands(commands: Any) -> None:
    parser = add_request(commands, "txn", "compare and write in one revision", _txn)
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for flag, name, what in (
        ("--if", "compares", "a comparison; all of them must hold"),
        ("--then", "success", "what to do if they hold"),
        ("--else", "failure", "what to do if not"),
    ):
        parser.add_argument(
            flag, dest=name, action="append", default=[], metavar="TEXT", help=f"{what}; repeatable"
        )

    ask = parser.get_default("run")
    parser.set_defaults(run=lambda arguments: ask(_parsed(arguments)))


def _parsed(arguments: argparse.Namespace) -> argparse.Namespace:
    """With lists for the store in place of texts; read before the store is asked, since people
    may take longer to type than --timeout allows it to answer."""
    parts = [arguments.compares, arguments.success, arguments.failure]
    if not any(parts):
        if sys.stdin.isatty():
            sys.stderr.write("comparisons, empty line, then, empty line, else, Ctrl-D:\n")
        parts = paragraphs(sys.stdin.read())
    arguments.compares = [comparison(line) for line in parts[0]]
    arguments.success = [operation(line) for line in parts[1]]
    arguments.failure = [operation(line) for line in parts[2]]
    return arguments


async def _txn(kv: KvClient, arguments: argparse.Namespace) -> int:
    branches = [arguments.success, arguments.failure]
    result = await kv.txn(arguments.compares, *branches)
    operations = branches[0] if result.succeeded else branches[1]
    _show(arguments, result, operations)
    return 0 if result.succeeded else 1


def paragraphs(source: str) -> list[list[str]]:
    """Three lists of lines, divided by empty lines. Raises UsageError for more."""
    parts: list[list[str]] = [[]]
    for line in source.splitlines():
        stripped = line.strip()
        if not stripped:
            parts.append([])
        elif not stripped.startswith("#"):
            parts[-1].append(stripped)
    while len(parts) > 3 and not parts[-1]:
        parts.pop()
    if len(parts) > 3:
        raise UsageError("a transaction has three paragraphs: comparisons, then, else")
    return parts + [[]] * (3 - len(parts))


# --- comparisons ---------------------------------------------------------------------------------


def comparison(line: str) -> list[Any]:
    """A comparison as the store takes it. Raises UsageError."""
    words = _words(line)
    if len(words) == 2 and words[0] in ("exists", "missing"):
        return compare(os.fsencode(words[1]), "create", ">" if words[0] == "exists" else "=", 0)
    if len(words) != 4 or words[0] not in OPERANDS or words[2] not in OPERATORS:
        raise UsageError(
            f"{line!r} is not a comparison: value KEY = VALUE (or version, create, mod, lease; "
            "or != < >), exists KEY, missing KEY"
        )
    target, key, operator, operand = words
    try:
        parsed = OPERANDS[target](operand)
    except ValueError as error:
        raise UsageError(f"{line!r}: {operand!r} is not a number") from error
    return compare(os.fsencode(key), target, operator, parsed)  # type: ignore[arg-type]  # checked


OPERANDS: dict[str, Callable[[str], int | bytes]] = {
    "value": os.fsencode,
    "version": int,
    "create": int,
    "mod": int,
    "lease": lease_id,
}


# --- operations ----------------------------------------------------------------------------------


def operation(line: str) -> list[Any]:
    """An operation as the store takes it. Raises UsageError."""
    words = _words(line)
    make = OPERATIONS.get(words[0]) if words else None
    made = make(words[1:]) if make is not None else None
    if made is None:
        raise UsageError(
            f"{line!r} is not an operation: put KEY VALUE [--lease ID], get KEY [--prefix], "
            "del KEY [--prefix]"
        )
    return made


def _put(words: Sequence[str]) -> list[Any] | None:
    if len(words) == 2:
        return put_op(os.fsencode(words[0]), os.fsencode(words[1]))
    if len(words) == 4 and words[2] == "--lease":
        try:
            return put_op(os.fsencode(words[0]), os.fsencode(words[1]), lease_id(words[3]))
        except ValueError as error:
            raise UsageError(f"{words[3]!r} is not the id of a lease") from error
    return None


def _get(words: Sequence[str]) -> list[Any] | None:
    found = _range(words)
    return None if found is None else get_op(*found)


def _delete(words: Sequence[str]) -> list[Any] | None:
    found = _range(words)
    return None if found is None else delete_op(*found)


def _range(words: Sequence[str]) -> tuple[bytes, bytes | None] | None:
    if len(words) == 1:
        return os.fsencode(words[0]), None
    if len(words) == 2 and "--prefix" in words:
        key = os.fsencode(words[0] if words[1] == "--prefix" else words[1])
        return key, prefix_end(key)
    return None


OPERATIONS: dict[str, Callable[[Sequence[str]], list[Any] | None]] = {
    "put": _put,
    "get": _get,
    "del": _delete,
}


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{line!r}: {error}") from error


# --- results -------------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace, result: TxnResult, operations: list[list[Any]]) -> None:
    if arguments.output == "json":
        rows = [_json(row) for row in result.results]
        write_json({"succeeded": result.succeeded, "revision": result.revision, "results": rows})
        return
    write("succeeded" if result.succeeded else "failed")
    for done, row in zip(operations, result.results, strict=True):
        if isinstance(row, RangeResult):
            for pair in row.kvs:
                write(f"{text(pair.key)}\t{text(pair.value)}")
        elif done[0] == "put":
            write(f"revision {row[0]}")
        else:
            write(f"deleted {row[1]}")


def _json(row: Any) -> dict[str, Any]:
    if isinstance(row, RangeResult):
        pairs = [
            {**pair._asdict(), "key": json_bytes(pair.key), "value": json_bytes(pair.value)}
            for pair in row.kvs
        ]
        return {"kvs": pairs, "count": row.count}
    return {"revision": row[0], **({"deleted": row[1]} if type(row[1]) is int else {})}
