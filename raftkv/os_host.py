"""The real machine as a `raftkv.host.Host`: TCP, files, the operating system's randomness."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

import trio

from raftkv.host import Address, Disk, File, Listener, Tls
from raftkv.os_file import OsFile

__all__ = ["OsDisk", "OsHost", "TcpListener", "TcpNet", "load_tls"]

BACKLOG = 1024


class TcpListener:
    """A listening TCP socket that hands out connections with Nagle's delay off."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._listener = trio.SocketListener(sock)
        name = sock.getsockname()
        self._address = Address(name[0], name[1])

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> trio.abc.Stream:
        return await self._listener.accept()

    async def aclose(self) -> None:
        await self._listener.aclose()


class TcpNet:
    """TCP as a `Net`."""

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        return await trio.open_tcp_stream(address.host, address.port)

    async def listen(self, address: Address) -> Listener:
        infos = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = infos[0]
        sock = trio.socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await sock.bind(where)
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return TcpListener(sock)


class OsDisk:
    """A directory of the operating system as a `Disk`."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._open: WeakValueDictionary[str, OsFile] = WeakValueDictionary()

    def names(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._directory) if entry.is_file())

    def read(self, name: str) -> bytes:
        data = (self._directory / name).read_bytes()
        file = self._open.get(name)
        return data if file is None else data[: file.size]  # without what it has reserved

    def open_append(self, name: str) -> File:
        file = self._open[name] = OsFile(self._directory / name)
        return file

    async def replace(self, name: str, data: bytes) -> None:
        await trio.to_thread.run_sync(self._replace, name, data)

    def _replace(self, name: str, data: bytes) -> None:
        temporary = self._directory / f"{name}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(self._directory / name)
        self._sync_directory()

    def rename(self, old: str, new: str) -> None:
        self._open.pop(old, None)
        (self._directory / old).rename(self._directory / new)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._directory / name).unlink()

    async def sync_directory(self) -> None:
        await trio.to_thread.run_sync(self._sync_directory)

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class OsHost:
    """This machine."""

    def __init__(self, name: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.name = name or socket.gethostname()
        self.net = TcpNet()
        self.rng: random.Random = random.SystemRandom()
        self.now = clock

    def disk(self, directory: str) -> Disk:
        return OsDisk(directory)


def load_tls(*, ca: str, certificate: str, key: str, require_client: bool = True) -> Tls:
    """Contexts for one identity from three PEM files.

    The server side asks clients for a certificate of the same authority, and with
    `require_client` refuses those without one. Raises OSError or ssl.SSLError.
    """
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    client.load_cert_chain(certificate, key)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    server.load_cert_chain(certificate, key)
    server.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
    for context in (client, server):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return Tls(client, server)
