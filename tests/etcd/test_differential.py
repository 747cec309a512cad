"""Debian's etcd and our front get the same random requests: their answers are equal, revisions,
error texts and all, and so are the events of watches.

Runs for about a minute with ETCD_SEEDS=FIRST:LAST, by default a few; for a campaign:
`ETCD_SEEDS=0:2000 pytest tests/etcd/test_differential.py`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftkv.etcd.schema import MESSAGES
from tests.etcd.client import EtcdClient
from tests.etcd.processes import etcd, raftkv
from tests.etcd.programs import Request, WatchLog, answer_of, random_request, random_watch

FIRST, _, LAST = os.environ.get("ETCD_SEEDS", "0:20").partition(":")
STEPS = 60
STREAMS = 3
BARRIER = b"~"
SETTLE_SECONDS = 5.0

pytestmark = [pytest.mark.tool("etcd"), pytest.mark.slow]


class Pair:
    """Both servers, at the same revision."""

    def __init__(self, reference: EtcdClient, ours: EtcdClient) -> None:
        self.reference = reference
        self.ours = ours
        self.revision = 0
        self.compacted = 0

    def ask(self, request: Request) -> tuple[str, object]:
        expected = answer_of(self.reference, request)
        found = answer_of(self.ours, request)
        assert found == expected, (
            f"{request.name} at revision {self.revision}, compacted {self.compacted}:\n"
            f"{request.message}\netcd answers\n{expected[0]}: {expected[1]}\n"
            f"raftkv answers\n{found[0]}: {found[1]}"
        )
        if found[0] == "ok":
            self.revision = max(self.revision, found[1].header.revision)
            if request.name == "Compact":
                self.compacted = request.message.revision
        return found

    def clear(self) -> None:
        """Begin anew: no keys, no leases; revisions go on."""
        everything = MESSAGES["DeleteRangeRequest"](key=b"\0", range_end=b"\0")
        self.ask(Request("KV", "DeleteRange", everything))
        for lease in (1, 2, 3):
            self.ask(Request("Lease", "LeaseRevoke", MESSAGES["LeaseRevokeRequest"](ID=lease)))


@pytest.fixture(scope="module", params=[1, 3])
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Ours is one member, or a follower of three."""
    directory: Path = tmp_path_factory.mktemp("differential")
    with (
        etcd(directory) as reference,
        raftkv(directory, members=request.param) as ours,
        EtcdClient(reference) as reference_client,
        EtcdClient(follower(ours)) as our_client,
    ):
        yield Pair(reference_client, our_client)


def follower(addresses: list[str]) -> str:
    """One that does not lead; the only one, where there are no others."""
    for _ in range(100):
        for address in addresses:
            with EtcdClient(address) as client:
                status = client.call("Maintenance/Status")
            alone = len(addresses) == 1
            if status.leader and (status.leader != status.header.member_id or alone):
                return address
    raise AssertionError("there is no leader")


@pytest.mark.parametrize("seed", range(int(FIRST), int(LAST or FIRST)))
def test_answers_are_equal(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    pair.clear()
    for _ in range(STEPS):
        pair.ask(random_request(rng, pair.revision, pair.compacted))
    everything = MESSAGES["RangeRequest"](key=b"\0", range_end=b"\0")
    pair.ask(Request("KV", "Range", everything))


@pytest.mark.parametrize("seed", range(int(FIRST), int(LAST or FIRST)))
def test_watches_are_equal(pair: Pair, seed: int) -> None:
    rng = random.Random(f"watch {seed}")
    pair.clear()
    streams: list[tuple[WatchLog, WatchLog]] = []
    try:
        for _ in range(STREAMS):
            both = WatchLog(pair.reference), WatchLog(pair.ours)
            barrier = MESSAGES["WatchCreateRequest"](key=BARRIER, watch_id=1000)
            for log in both:
                log.create(barrier)
                assert log.read_until(lambda log=log: 1000 in log.told)
            streams.append(both)
        for _ in range(STEPS // 3):
            for _ in range(rng.randrange(4)):
                request = random_request(rng, pair.revision, pair.compacted)
                if request.name == "Compact":
                    wait_caught_up(pair, streams[0])
                pair.ask(request)
            act_on_watches(rng, pair, rng.choice(streams))
        put = MESSAGES["PutRequest"](key=BARRIER, value=b"over")
        pair.ask(Request("KV", "Put", put))
        for both in streams:
            compare(*both)
    finally:
        for both in streams:
            for log in both:
                log.close()


def wait_caught_up(pair: Pair, both: tuple[WatchLog, WatchLog]) -> None:
    """Until every watch has read its history or been told that it is gone: otherwise it's chance
    whether a compaction or a cancellation was faster.

    Each server moves all that are behind in one round, so a last one that has arrived will do.
    """
    pair.ask(Request("KV", "Put", MESSAGES["PutRequest"](key=BARRIER)))
    watch_id = 1001 + len(both[0].created)
    request = MESSAGES["WatchCreateRequest"](
        key=BARRIER, start_revision=pair.revision, watch_id=watch_id
    )
    for log in both:
        log.create(request)
        assert log.read_until(lambda log=log: len(log.told.get(watch_id, ())) > 1)


def act_on_watches(rng: random.Random, pair: Pair, both: tuple[WatchLog, WatchLog]) -> None:
    """Create or cancel one, and see it done on both before anything else happens."""
    if rng.random() < 0.8:
        request = random_watch(rng, pair.revision, pair.compacted)
        for log in both:
            before = controls(log)
            log.create(request)
            assert log.read_until(lambda log=log, n=before: controls(log) > n)
    else:
        wait_caught_up(pair, both)
        watch_id = rng.choice((0, 1, 5, 7))
        for log in both:
            log.cancel(watch_id)


def controls(log: WatchLog) -> int:
    return sum(line.startswith("created=True") for lines in log.told.values() for line in lines)


def compare(reference: WatchLog, ours: WatchLog) -> None:
    """Both have told the same, once both have told everything."""
    for log in (reference, ours):
        assert log.read_until(lambda log=log: "over" in log.told[1000][-1])

    def equal() -> bool:
        reference.read(0)
        return ours.told == reference.told

    ours.read_until(equal, SETTLE_SECONDS)
    for watch_id in sorted(set(reference.told) | set(ours.told)):
        expected, found = reference.told.get(watch_id, []), ours.told.get(watch_id, [])
        created = "\n".join(ours.created)
        assert found == expected, (
            f"watch {watch_id} of these:\n{created}\netcd tells\n{expected}\nraftkv tells\n{found}"
        )
