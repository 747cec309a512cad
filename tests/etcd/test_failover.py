"""A leader dies while etcd's clients write through another member."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from raftkv.etcd.schema import MESSAGES as M
from tests.etcd.client import EtcdClient, Refused
from tests.etcd.support import in_thread, open_fronts

COUNTER = b"counter"
ENOUGH = 40


class Counter:
    """Adds one to a number, again and again, as Kubernetes changes objects: by compare and put."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.acknowledged = 0
        self.unknown = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            try:
                self._add()
            except Refused as refused:
                if refused.args[0] != "UNAVAILABLE":
                    raise

    def _add(self) -> None:
        found = self._client.call("KV/Range", key=COUNTER)
        number, revision = self.read(found), found.kvs[0].mod_revision if found.kvs else 0
        put = M["PutRequest"](key=COUNTER, value=b"%d" % (number + 1))
        compare = M["Compare"](target=2, key=COUNTER, mod_revision=revision)
        try:
            done = self._client.call(
                "KV/Txn", compare=[compare], success=[M["RequestOp"](request_put=put)]
            )
        except Refused:
            self.unknown += 1
            raise
        assert done.succeeded or self.unknown  # one of ours may still come late
        self.acknowledged += done.succeeded

    @staticmethod
    def read(found: Any) -> int:
        return int(found.kvs[0].value) if found.kvs else 0


async def test_counter_survives_the_leader(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:
        leader = await fronts.cluster.wait_leader()
        member = next(n for n in fronts.addresses if n != leader.id)
        counter = Counter(fronts.client(member))

        async def reach(count: Callable[[], bool]) -> None:
            with trio.fail_after(30):
                while not count():
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, counter.run)
            await reach(lambda: counter.acknowledged >= ENOUGH)
            await fronts.cluster.stop(leader.id)
            before = counter.acknowledged
            await reach(lambda: counter.acknowledged >= before + ENOUGH)
            counter.over = True
        final = counter.read(await fronts.call("KV/Range", member, key=COUNTER))
        assert counter.acknowledged <= final <= counter.acknowledged + counter.unknown
