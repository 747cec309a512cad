"""How much memory processes have, shared pages counted by their share (PSS)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["pss_bytes"]


def pss_bytes(pid: int) -> int:
    """The proportional set size; 0 for a process that is gone or not ours to look at."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0
