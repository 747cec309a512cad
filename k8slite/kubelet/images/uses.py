"""Which images the containers of a machine's nodes use: one small file a node, in the store.

All nodes of a cluster share their images, so none may remove what containers of another one
stand on. A kubelet that is down goes on being believed: its containers may well run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import attrs

__all__ = ["Uses"]


@attrs.frozen
class _Used:
    in_use: frozenset[str] = frozenset()
    last_used: dict[str, float] = attrs.field(factory=dict)


@attrs.frozen
class Uses:
    """`directory` of all nodes' files; `owner`: this node's. Images are ids."""

    directory: Path
    owner: str

    def note(self, in_use: Iterable[str], now: float) -> None:
        """All that this node uses. Raises OSError."""
        images = sorted(set(in_use))
        times = {**self._read(self.owner).last_used, **dict.fromkeys(images, now)}
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{self.owner}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"in_use": images, "last_used": times}))
        os.replace(temporary, path)

    def add(self, image: str, now: float) -> None:
        """One more, of a container that is being made. Raises OSError."""
        self.note([*self._read(self.owner).in_use, image], now)

    def _read(self, owner: str) -> _Used:
        try:
            found = json.loads((self.directory / f"{owner}.json").read_text())
            return _Used(frozenset(found["in_use"]), dict(found["last_used"]))
        except FileNotFoundError:
            return _Used()

    def in_use(self) -> frozenset[str]:
        """By any node."""
        return frozenset().union(*(used.in_use for used in self._all()))

    def last_used(self) -> dict[str, float]:
        """When each was seen in use last, by any node; wall-clock seconds."""
        latest: dict[str, float] = {}
        for used in self._all():
            for image, at in used.last_used.items():
                latest[image] = max(at, latest.get(image, 0.0))
        return latest

    def _all(self) -> list[_Used]:
        return [self._read(path.stem) for path in sorted(self.directory.glob("*.json"))]
