"""What no member recovers from: a bit of its disk turns over, a sector is written to a wrong place,
or all of it is exchanged.

No more than a minority is ever struck (TigerBeetle's atlas of faults): beyond that, data loss is no
bug. A member whose disk is damaged has to refuse its start, or not to notice since the bit did not
matter; one whose disk is empty comes back under its old id, and nobody may listen to it.
"""

from __future__ import annotations

import random
from collections import Counter

import attrs
import trio

from netsim.hosts import SimHost
from netsim.world import World
from raftkv.errors import Corrupt
from tests.checkers.agreement import Agreement
from tests.sim.members import Members

__all__ = ["Vandal"]


@attrs.define
class Vandal:
    world: World
    members: Members
    agreement: Agreement
    rng: random.Random
    reached: Counter[str]
    struck: list[str] = attrs.field(factory=list)

    async def run(self, seconds: float) -> None:
        """Strike up to a minority of the members within so many seconds."""
        names = self.members.names
        for _ in range(self.rng.randrange((len(names) - 1) // 2 + 1)):
            await trio.sleep(self.rng.random() * seconds)
            victim = self.rng.choice([name for name in names if name not in self.struck])
            if self.rng.random() < 0.6:
                await self._damage(victim)
            elif self._known_to_all(victim):
                await self._wipe(victim)

    async def _damage(self, victim: str) -> None:
        """One file, at rest. It's noticed when the member starts the next time."""
        host = self.world.hosts[victim]
        self.world.crash(host, power=self.rng.random() < 0.5)
        files = [(disk, n) for disk in host.platters() for n in disk.names() if disk.read(n)]
        if files:
            self._mark(host)
            disk, name = self.rng.choice(files)
            if self.rng.random() < 0.6:
                disk.flip_bit(name)
                self.reached["a bit flipped"] += 1
            elif disk.misdirect(name):
                self.reached["a write misdirected"] += 1
        await self.world.restart(host)

    async def _wipe(self, victim: str) -> None:
        host = self.world.hosts[victim]
        self.world.crash(host)
        self._mark(host)
        for disk in host.platters():
            disk.wipe()
        self.members.lost.append(victim)
        self.agreement.lost(self.members.configs[victim].id)
        self.reached["a disk wiped"] += 1
        await self.world.restart(host)

    def _mark(self, host: SimHost) -> None:
        self.struck.append(host.name)
        host.exit_on = (*host.exit_on, Corrupt)

    def _known_to_all(self, victim: str) -> bool:
        """Whether every other member has met it: before that, an empty disk is a first start, and
        no store can tell it from one."""
        victim_id = self.members.configs[victim].id
        others = [name for name in self.members.names if name != victim]
        return all(
            name in self.members.running
            and victim_id in self.members.running[name].peers._incarnations._known
            for name in others
        )
