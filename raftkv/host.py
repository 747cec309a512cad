"""What a process gets from outside: network, disk, randomness and wall clock.

Every component of raftkv and k8slite takes one `Host` and touches the outside world through it
alone, so that the same code runs on a real machine (`raftkv.os_host`) and on a simulated one
(`netsim`, which fulfils these protocols by structure and imports nothing from here).

Rules that come with it:

- Elapsed time is `trio.current_time()`; `trio.sleep` and `trio.fail_after` are the only waits.
  `Host.now` is for timestamps that people read, never for deadlines.
- Randomness comes from `Host.rng`: identifiers, jitter, generated names.
- Nothing iterates a set where the order can escape: one seed gives one trace.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:  # so that programs which only name addresses start without an event loop
    import ssl

    import trio

__all__ = ["Address", "Disk", "File", "Host", "Listener", "Net", "Tls", "parse_address"]


class Address(NamedTuple):
    """Where a server listens: host name or IP address, and TCP port (0 asks for a free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `[V6]:PORT` as an Address.

    Raises ValueError, with a message that can be shown to a user as it is.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address of the form HOST:PORT")
    return Address(host, int(port))


class Listener(Protocol):
    """A bound server socket. `address` holds the real port where port 0 was asked for."""

    @property
    def address(self) -> Address: ...

    async def accept(self) -> trio.abc.Stream:
        """The next connection. Raises trio.ClosedResourceError once the listener is closed."""
        ...

    async def aclose(self) -> None: ...


class Net(Protocol):
    """Ordered byte streams between addresses; no more."""

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        """A connected stream. Raises OSError (refused, unreachable, name not found)."""
        ...

    async def listen(self, address: Address) -> Listener:
        """A bound listener. Raises OSError (address in use, not available, no permission)."""
        ...


class File(Protocol):
    """An append-only file. What was appended is durable only after `sync` has returned.

    After a crash it may be followed by zeros that nobody wrote: space that was reserved.
    """

    @property
    def size(self) -> int: ...

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Hand the bytes to the operating system. Raises OSError (disk full, I/O error)."""
        ...

    def begin_sync(self) -> None:
        """Let the next `sync` begin in the background, if that is possible.

        Nothing may be appended between the two.
        """
        ...

    async def sync(self) -> None:
        """Make all appended bytes durable (fdatasync).

        Raises OSError; the caller must treat that as fatal: what is on the disk is unknown.
        """
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes; not durable before the next `sync`."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A flat directory of files, with just the calls whose crash behaviour we reason about.

    Names are plain file names. Creation, renaming and deletion are durable only after
    `sync_directory`.
    """

    def names(self) -> list[str]:
        """The files that exist, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        ...

    def open_append(self, name: str) -> File:
        """Open for appending, made empty if it does not exist."""
        ...

    async def replace(self, name: str, data: bytes) -> None:
        """Write a file atomically and durably: temporary file, sync, rename, directory sync."""
        ...

    def rename(self, old: str, new: str) -> None: ...

    def delete(self, name: str) -> None:
        """Delete a file; one that does not exist is no error."""
        ...

    async def sync_directory(self) -> None: ...


@runtime_checkable
class Host(Protocol):
    """The machine under a component."""

    @property
    def name(self) -> str: ...

    @property
    def net(self) -> Net: ...

    @property
    def rng(self) -> random.Random:
        """Cryptographically strong on a real machine, seeded on a simulated one."""
        ...

    def disk(self, directory: str) -> Disk:
        """The directory as a Disk; it and its parents are created if they do not exist."""
        ...

    def now(self) -> float:
        """Wall clock in seconds since 1970 (UTC)."""
        ...


class Tls(NamedTuple):
    """Both sides of mutual TLS for one identity; None in place of it means plain streams."""

    client: ssl.SSLContext
    server: ssl.SSLContext
