"""The termination message of a container: what it wrote, or the end of its log."""

from __future__ import annotations

from pathlib import Path

import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.runtime.interface import ContainerStatus
from k8slite.kubelet.serving.logs import parse_line

FILE_BYTES_MAX = 4096
LOG_BYTES_MAX = 2048
LOG_LINES_MAX = 80


async def termination_message(container: Obj | None, status: ContainerStatus) -> str:
    """ "" when there is none; then the runtime's own message counts."""
    if not status.termination_message_file:
        return ""
    policy = (container or {}).get("terminationMessagePolicy", "File")
    return await trio.to_thread.run_sync(_read, status, policy)


def _read(status: ContainerStatus, policy: str) -> str:
    try:
        with Path(status.termination_message_file).open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode(errors="replace")
    except OSError:
        text = ""
    if text or policy != "FallbackToLogsOnError" or status.exit_code == 0:
        return text
    try:
        with Path(status.log_path).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 16 * LOG_BYTES_MAX))
            lines = file.read().splitlines()[-LOG_LINES_MAX:]
    except OSError:
        return ""
    found = [parse_line(line) for line in lines]
    whole = b"\n".join(line.text for line in found if line is not None)
    return whole[-LOG_BYTES_MAX:].decode(errors="replace")
