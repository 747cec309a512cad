"""Ports for servers that tests start, in this process or in another."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

_CHANCE = random.SystemRandom()


def free_port(ip: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody has now and that the kernel gives to nobody who doesn't ask for it.

    Binding port 0 would give one from the range of outgoing connections, and any client on the
    machine could take it before our server is up.
    """
    while True:
        port = _CHANCE.randrange(10_000, 30_000)
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind((ip, port))
            except OSError:
                continue
            return port
