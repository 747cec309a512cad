"""Runs the programs that write rules."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import trio

from k8slite.proxy.writer import WriteFailed

__all__ = ["run_command"]


async def run_command(command: Sequence[str], text: str) -> str:
    """What the program says to this input. Raises WriteFailed with its complaint."""
    try:
        done = await trio.run_process(
            list(command),
            stdin=text.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise WriteFailed(f"{command[0]} can't be run: {error}") from error
    if done.returncode:
        errors = done.stderr.decode(errors="replace").strip()
        raise WriteFailed(f"{' '.join(command[-4:])} failed with {done.returncode}: {errors}")
    return done.stdout.decode(errors="replace")
