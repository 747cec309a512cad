"""Connections to a pod's ports, made where the pod is: in its network namespace."""

from __future__ import annotations

import ctypes
import os
import socket

import trio

from k8slite.streaming.bytes import why

__all__ = ["connect", "connect_inside"]

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the pod's network namespace: {os.strerror(number)}")


def _socket_inside(pid: int, family: socket.AddressFamily) -> socket.socket:
    """A socket belongs for ever to the namespace of the thread that makes it."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(theirs)
        finally:
            os.close(theirs)
        try:
            return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        finally:
            _enter(own)
    finally:
        os.close(own)


async def connect(host: str, port: int) -> trio.abc.Stream:
    """Raises OSError with a reason for users."""
    try:
        return await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise OSError(f"failed to connect to {host}:{port}: {why(error)}") from None


async def connect_inside(pid: int, port: int) -> trio.abc.Stream:
    """A connection to localhost in the network namespace of a process. Raises OSError."""
    first: OSError | None = None
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            plain = await trio.to_thread.run_sync(_socket_inside, pid, family)
            made = trio.socket.from_stdlib_socket(plain)
            try:
                await made.connect((host, port))
            except BaseException:
                made.close()
                raise
            return trio.SocketStream(made)
        except OSError as error:
            first = first or error
    assert first is not None, "both families have failed"
    raise OSError(
        f"failed to connect to localhost:{port} inside the pod's namespace: {why(first)}"
    ) from None
