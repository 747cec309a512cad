"""Transcripts: what one types at a shell, and what must come of it.

    # Said to the reader.
    $ kubectl create configmap conf --from-literal=a=b
    configmap/conf created
    % kubectl get pods          run again until it answers so
    NAME   READY   STATUS    RESTARTS   AGE
    x      1/1     Running   0          ...
    $ kubectl get nothing
    > | cat                     the command goes on
    error: ...
    [1]                         the exit code, where it is not 0

Standard output and standard error are one. `...` stands for any text of a line; on a line by itself
for any lines. Runs of blanks are one blank, and empty lines are none: columns are not compared.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

__all__ = ["Step", "matches", "parse", "run"]

PATIENCE_SECONDS: Final = 40.0
COMMAND_SECONDS: Final = 60.0
ANY: Final = "..."
NOISE: Final = "Unknown stream id 1, discarding message"
"""kubectl says so when the first message, empty to tell that all is well, comes too early."""


@attrs.frozen
class Step:
    """One command of a transcript, at that line of its file, and what it must say."""

    line: int
    command: str
    wanted: tuple[str, ...]
    until: bool = False


def parse(text: str) -> list[Step]:
    """The steps of a transcript. Raises ValueError for words that belong to no command."""
    steps: list[Step] = []
    for number, raw in enumerate(text.splitlines(), 1):
        mark, words = raw[:2], raw[2:]
        if mark in ("$ ", "% "):
            steps.append(Step(number, words, (), mark == "% "))
        elif not raw.strip() or mark in ("# ", "#"):
            continue
        elif not steps:
            raise ValueError(f"line {number}: no command said {raw!r}")
        elif mark == "> ":
            steps[-1] = attrs.evolve(steps[-1], command=f"{steps[-1].command}\n{words}")
        else:
            steps[-1] = attrs.evolve(steps[-1], wanted=(*steps[-1].wanted, _plain(raw)))
    return steps


def matches(wanted: tuple[str, ...], said: tuple[str, ...]) -> bool:
    """Is this what was wanted?"""
    pattern = "".join(
        r"(?:.*\n)*" if line == ANY else ".*".join(map(re.escape, line.split(ANY))) + "\n"
        for line in wanted
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in said)) is not None


def run(step: Step, environment: Mapping[str, str], directory: Path) -> tuple[str, ...]:
    """What the command says in the end: lines, and the exit code if it is not 0."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = subprocess.run(
            ["/bin/sh", "-c", step.command],
            env={**os.environ, **environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            text=True,
        )
        lines = [
            _plain(line) for line in done.stdout.splitlines() if line.strip() and NOISE not in line
        ]
        said = (*lines, f"[{done.returncode}]") if done.returncode else tuple(lines)
        if not step.until or matches(step.wanted, said) or time.monotonic() > ends_at:
            return said
        time.sleep(0.1)


def _plain(line: str) -> str:
    return " ".join(line.split())
