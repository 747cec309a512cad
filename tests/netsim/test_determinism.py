"""One seed is one run: in this process, and in another with another hash seed."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
import trio

from netsim import determinism
from netsim.determinism import deterministic_run, require_hooks, run_queue, seeded_scheduler

TWICE = """
import sys, trio
from netsim.world import World, run
from tests.netsim.storm import storm

print(run(int(sys.argv[1]), storm).trace_hash)
"""


def test_this_trio_has_every_private_name_that_the_simulator_uses() -> None:
    require_hooks()


@pytest.mark.parametrize("name", ["_FLAG", "_RANDOM", "_CONTEXT"])
def test_a_trio_without_one_of_them_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(determinism, name, "_vanished")
    with pytest.raises(RuntimeError, match="_vanished"):
        require_hooks()


async def test_the_run_queue_is_trios_own() -> None:
    stepped: list[str] = []

    async def child() -> None:
        stepped.append("child")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        held = run_queue().pop()
        await trio.lowlevel.checkpoint()
        assert stepped == []
        run_queue().append(held)
    assert stepped == ["child"]


def _order(seed: int) -> list[int]:
    async def main() -> list[int]:
        order: list[int] = []

        async def child(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                order.append(number)
                await trio.sleep(1.0)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(child, number)
        return order

    return deterministic_run(seed, main)


def test_the_seed_decides_the_order_of_tasks() -> None:
    assert _order(1) == _order(1)
    assert len({tuple(_order(seed)) for seed in range(20)}) > 10


def test_the_scheduler_is_given_back_as_it_was() -> None:
    from trio._core import _run

    before = _run._r.getstate()
    with seeded_scheduler(3):
        assert _run._r.random() == random.Random(3).random()
    assert _run._r.getstate() == before


def test_two_processes_with_different_hash_seeds_write_one_trace() -> None:
    hashes = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", TWICE, "11"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        hashes.append(done.stdout.strip())
    assert len(hashes[0]) == 32
    assert hashes[0] == hashes[1]
