"""What the supervisor tells the `up` that waits, if one does.

Lines of JSON: `{"step": ...}` while the cluster starts, then `{"ready": seconds, "notices": [...]}`
or `{"error": words}`. The other end answers "detach" to leave the cluster running; if it is closed
without, the cluster is to be stopped: Ctrl-C, or `up` killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from typing import Any

__all__ = ["Reporter"]

log = logging.getLogger(__name__)


class Reporter:
    """Owns the socket. A step is timed from the reporter's making."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket: socket.socket | None = sock
        self.started = time.monotonic()

    def tell(self, **words: Any) -> None:
        """Few and short lines: they fit into the socket's buffer, read or not."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(json.dumps(words).encode() + b"\n")

    def step(self, words: str) -> None:
        log.info("step %s", words)
        self.tell(step=words, seconds=time.monotonic() - self.started)

    async def wait_gone(self) -> None:
        """Return when the other end is closed without having said "detach"."""
        import trio

        if self._socket is None:
            await trio.sleep_forever()
        assert self._socket is not None
        self._socket.setblocking(False)
        sock = trio.socket.from_stdlib_socket(self._socket)
        with contextlib.suppress(OSError):
            while data := await sock.recv(64):
                if b"detach" in data:
                    self._socket = None
                    sock.close()
                    await trio.sleep_forever()
