"""Which incarnation of each peer we have met: durable, so that a wiped member can't come back.

A member that lost its disk has forgotten votes it gave and entries it acknowledged. If it came
back under its old id, a majority could forget what was committed. So the first incarnation that
is met counts, for ever; a wiped machine joins again as a new member with a new id.

Owns: the file `peers` in the member's directory. Assumes one caller at a time per member's actor
tasks; the write is atomic.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import trio

from raftkv.errors import Corrupt, WrongCluster
from raftkv.host import Disk
from raftkv.wire.framing import ProtocolError, pack, unpack

__all__ = ["Incarnations"]

FILE = "peers"


class Incarnations:
    def __init__(self, disk: Disk, published: Callable[[int], int]) -> None:
        """`published` tells what the replicated table knows, 0 for nothing.

        Raises Corrupt when the file is damaged.
        """
        self._disk = disk
        self._published = published
        self._known: dict[int, int] = {}
        self._writing = trio.Lock()
        if FILE in disk.names():
            data = disk.read(FILE)
            try:
                checksum, rows = unpack(data)
                if checksum != zlib.crc32(pack(rows)):
                    raise ValueError("checksum")
                self._known = dict(rows)
            except (ProtocolError, ValueError, TypeError) as error:
                raise Corrupt(
                    f"{FILE} is damaged; if no member of this cluster was ever wiped, "
                    "deleting it is safe"
                ) from error

    def look(self, peer: int, incarnation: int) -> None:
        """Raise WrongCluster for a peer that is not the one we know."""
        known = self._known.get(peer) or self._published(peer) or incarnation
        if known != incarnation:
            raise WrongCluster(
                f"member {peer} comes with another log than it had (incarnation "
                f"{incarnation:x}, known {known:x}): its data was lost or exchanged; remove it "
                f"(`raftkv member remove {peer}`) and add it again under a new name"
            )

    async def check(self, peer: int, incarnation: int) -> None:
        """Accept a peer that is new or the one we know. Raises WrongCluster for another one."""
        self.look(peer, incarnation)
        if peer in self._known:
            return
        async with self._writing:
            self.look(peer, incarnation)
            self._known[peer] = incarnation
            rows = sorted(self._known.items())
            await self._disk.replace(FILE, pack([zlib.crc32(pack(rows)), rows]))
