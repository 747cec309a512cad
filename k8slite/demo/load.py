"""Steady writes while things are killed, and what must be true of them afterwards.

Each writer makes ConfigMaps and counts up one of its own. What an apiserver acknowledged must be
found later through every apiserver; a write whose answer was lost may be there or not; nothing
else may be there.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Final

import attrs
import trio

from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj, name
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS, UnknownOutcome
from k8slite.demo.show import NotHeld

__all__ = ["Writes", "longest_gap", "run_writers"]

CONFIG_MAPS: Final = KIND["configmaps"]
WRITERS: Final = 4
PAUSE_SECONDS: Final = 0.02
ATTEMPT_SECONDS: Final = 15.0


@attrs.define
class Writes:
    """What was tried and what was said of it. Times are trio's."""

    acknowledged: dict[str, str] = attrs.field(factory=dict)
    """Name to the value that was acknowledged."""
    unknown: dict[str, str] = attrs.field(factory=dict)
    """Name to the value of writes whose answer was lost."""
    counters: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    """Name to the last count that was acknowledged, and the last that was tried."""
    acknowledged_at: list[float] = attrs.field(factory=list)
    refused: int = 0

    @property
    def total(self) -> int:
        return len(self.acknowledged_at)

    def note(self) -> None:
        self.acknowledged_at.append(trio.current_time())

    async def verify(self, api: Api, namespace: str) -> int:
        """Look for every write; how many objects there were. Raises NotHeld."""
        found = {
            name(o): o.get("data") or {} for o in (await api.list(CONFIG_MAPS, namespace)).items
        }
        for each, value in self.acknowledged.items():
            if found.get(each, {}).get("value") != value:
                raise NotHeld(f"the acknowledged ConfigMap {each} is lost: {found.get(each)}")
        for each, (acknowledged, tried) in self.counters.items():
            count = int(found.get(each, {}).get("count", -1))
            if not acknowledged <= count <= tried:
                raise NotHeld(f"{each} counts {count}, not {acknowledged} to {tried}")
        for each, data in found.items():
            known = each in self.acknowledged or each in self.counters
            if not known and self.unknown.get(each) != data.get("value"):
                raise NotHeld(f"ConfigMap {each} was never acknowledged: {data}")
        return len(found)


def longest_gap(times: list[float], begin: float, end: float) -> float:
    """The longest time without an event, of those that touch [begin, end] (pure)."""
    inside = [begin, *(t for t in times if begin <= t <= end), end]
    return max(after - before for before, after in pairwise(inside))


async def run_writers(api: Api, namespace: str, writes: Writes) -> None:
    """Write until cancelled."""
    async with trio.open_nursery() as nursery:
        for number in range(1, WRITERS + 1):
            nursery.start_soon(_write, api, namespace, writes, number)


async def _write(api: Api, namespace: str, writes: Writes, writer: int) -> None:
    counter = await _make_counter(api, namespace, writes, writer)
    number = 0
    while True:
        number += 1
        each, value = f"write-{writer}-{number}", f"{writer}/{number}"
        made = _config_map(namespace, each, {"value": value})
        with trio.move_on_after(ATTEMPT_SECONDS):
            writes.unknown[each] = value
            try:
                await api.create(CONFIG_MAPS, made)
                del writes.unknown[each]
                writes.acknowledged[each] = value
                writes.note()
            except UnknownOutcome:
                pass  # it stays among the unknown ones
            except REQUEST_ERRORS:
                writes.refused += 1
        counter = await _count(api, writes, counter)
        await trio.sleep(PAUSE_SECONDS)


async def _make_counter(api: Api, namespace: str, writes: Writes, writer: int) -> Obj:
    each = f"counter-{writer}"
    counter = await api.create(CONFIG_MAPS, _config_map(namespace, each, {"count": "0"}))
    writes.counters[each] = (0, 0)
    return counter


async def _count(api: Api, writes: Writes, counter: Obj) -> Obj:
    """One up, on the condition that nobody else wrote; the counter as it is now."""
    each = name(counter)
    acknowledged, tried = writes.counters[each]
    count = int(counter["data"]["count"]) + 1
    writes.counters[each] = (acknowledged, max(tried, count))
    with trio.move_on_after(ATTEMPT_SECONDS):
        try:
            counter = await api.update(CONFIG_MAPS, {**counter, "data": {"count": str(count)}})
            writes.counters[each] = (count, max(tried, count))
            writes.note()
            return counter
        except REQUEST_ERRORS:
            writes.refused += 1
        with contextlib.suppress(*REQUEST_ERRORS):  # the next attempt reads again
            counter = await api.get(CONFIG_MAPS, each, counter["metadata"]["namespace"])
    return counter


def _config_map(namespace: str, each: str, data: dict[str, str]) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": each, "namespace": namespace},
        "data": data,
    }
