"""`k8slite logs`: what a component says of itself."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO, Final

from k8slite.cli.common import add_command, add_name, add_output, existing
from k8slite.cli.output import CommandFailed, UsageError
from k8slite.cluster.layout import find
from k8slite.terminal import colour

__all__ = ["add_commands", "follow"]

FOLLOW_SECONDS: Final = 0.2
LEVEL_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}

LOGS: Final = """\
Show what a component says of itself. COMPONENT is a name as `k8slite status` shows it, such as
raftkv-1, apiserver-2 or kubelet-1, and also supervisor and zygote. With -o json the lines are as
they are in the file: objects with time, level, component, logger, message, perhaps error.
For what runs in pods: kubectl logs.
"""


def add_commands(commands: Any) -> None:
    logs = add_name(add_command(commands, "logs", "what a component says of itself", _logs, LOGS))
    logs.add_argument("component", metavar="COMPONENT", help="as `k8slite status` names it")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    add_output(logs)


def _logs(arguments: argparse.Namespace) -> int:
    layout = find(arguments.name)
    if not layout.is_ours():  # of a cluster that did not come up there are logs, and no more
        layout = existing(arguments.name)
    path = layout.log(arguments.component)
    if "/" in arguments.component or not path.exists():
        there = ", ".join(sorted(p.stem for p in layout.logs.glob("*.log"))) or "none yet"
        raise CommandFailed(f"no log of {arguments.component!r}; there are {there}")
    if arguments.tail is not None and arguments.tail < 0:
        raise UsageError(f"--tail {arguments.tail}: must not be negative")
    with open(path, "rb") as file:
        lines = [*_lines_of(path.with_name(f"{path.name}.1")), *file]
        partial = b""
        if arguments.follow and lines and not lines[-1].endswith(b"\n"):
            partial = lines.pop()
        if arguments.tail is not None:
            lines = lines[max(0, len(lines) - arguments.tail) :]
        for line in lines:
            _print_record(line, arguments.output)
        if arguments.follow:
            file.seek(-len(partial), os.SEEK_CUR)
            return _follow(path, file, arguments.output)
    return 0


def _follow(path: Path, file: BinaryIO, output: str) -> int:
    try:
        for line in follow(path, file):
            if line:
                _print_record(line, output)
            else:
                sys.stdout.flush()
                time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        pass
    return 130


def _lines_of(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def follow(path: Path, file: BinaryIO) -> Generator[bytes, None, None]:
    """The lines that are added from the file's position on, for ever; b"" when there is none now.

    When another file has taken its place, this one is read to its end first.
    """
    rest = b""
    try:
        while True:
            is_old = _is_other(path, file)
            for part in file:
                rest += part
                if rest.endswith(b"\n"):
                    yield rest
                    rest = b""
            if not is_old:
                yield b""
                continue
            if rest:
                yield rest
                rest = b""
            file.close()
            file = open(path, "rb")  # noqa: SIM115  # closed when another one takes its place
    finally:
        file.close()


def _is_other(path: Path, file: BinaryIO) -> bool:
    """Whether the path means another file now."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False  # between the old and the new one


def _print_record(line: bytes, output: str) -> None:
    """Also what came from outside of our logging, such as an interpreter's last words."""
    text = line.decode(errors="replace").rstrip("\n")
    try:
        record = json.loads(text)
        if output == "json":
            print(text)
            return
        level = record["level"]
        words = f"{record['time']} {level:7} {record['logger']}: {record['message']}"
    except (ValueError, LookupError, TypeError):
        print(json.dumps({"message": text}) if output == "json" else text)
        return
    print(colour(words, LEVEL_COLOURS[level]) if level in LEVEL_COLOURS else words)
    if record.get("error"):
        print(record["error"])
