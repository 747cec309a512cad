"""The judge of the demo: it must see a lost write, and must not see one where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from k8slite.demo.load import Writes, longest_gap
from k8slite.demo.show import NotHeld


class StoredConfigMaps:
    """As much of the API as `verify` asks for."""

    def __init__(self, objects: dict[str, dict[str, str]]) -> None:
        self._objects = objects

    async def list(self, kind: Any, namespace: str) -> Any:
        class Listed:
            items = [
                {"metadata": {"name": name, "namespace": namespace}, "data": data}
                for name, data in self._objects.items()
            ]

        return Listed


def writes() -> Writes:
    return Writes(
        acknowledged={"write-1-1": "1/1", "write-1-2": "1/2"},
        unknown={"write-1-3": "1/3"},
        counters={"counter-1": (7, 8)},
    )


RIGHT = {
    "write-1-1": {"value": "1/1"},
    "write-1-2": {"value": "1/2"},
    "counter-1": {"count": "7"},
}


@pytest.mark.parametrize(
    "stored",
    [
        RIGHT,
        {**RIGHT, "write-1-3": {"value": "1/3"}},
        {**RIGHT, "counter-1": {"count": "8"}},
    ],
    ids=["exactly the acknowledged", "an unknown one is there", "an unknown count is there"],
)
async def test_what_may_be(stored: dict[str, dict[str, str]]) -> None:
    assert await writes().verify(StoredConfigMaps(stored), "n") == len(stored)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({k: v for k, v in RIGHT.items() if k != "write-1-2"}, "write-1-2 is lost"),
        ({**RIGHT, "write-1-1": {"value": "other"}}, "write-1-1 is lost"),
        ({**RIGHT, "counter-1": {"count": "6"}}, "counts 6, not 7 to 8"),
        ({**RIGHT, "counter-1": {"count": "9"}}, "counts 9, not 7 to 8"),
        ({**RIGHT, "write-9-9": {"value": "9/9"}}, "write-9-9 was never acknowledged"),
        ({**RIGHT, "write-1-3": {"value": "1/4"}}, "write-1-3 was never acknowledged"),
    ],
    ids=["lost", "changed", "went back", "ran ahead", "invented", "not as it was sent"],
)
async def test_what_must_not_be(stored: dict[str, dict[str, str]], words: str) -> None:
    with pytest.raises(NotHeld, match=words):
        await writes().verify(StoredConfigMaps(stored), "n")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "begin", "end", "gap"),
    [
        ([], 10.0, 12.0, 2.0),
        ([10.5, 11.0, 11.1], 10.0, 11.2, 0.5),
        ([9.0, 10.1, 11.9, 13.0], 10.0, 12.0, 1.8),
    ],
)
def test_longest_gap(times: list[float], begin: float, end: float, gap: float) -> None:
    assert longest_gap(times, begin, end) == pytest.approx(gap)
