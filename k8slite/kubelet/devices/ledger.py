"""Which devices there are, and which container has which; its checkpoint is a file.

Rules are the kubelet's device manager's: a device belongs to one container until its pod is gone; a
container that restarts keeps what it had; unhealthy devices are given to nobody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Ledger", "NoDevices"]


class NoDevices(Exception):
    """There are not as many free ones; the text is Kubernetes'."""


@attrs.define
class Ledger:
    """`devices`: by resource, id to whether it is healthy."""

    devices: dict[str, dict[str, bool]] = attrs.field(factory=dict)
    _taken: dict[tuple[str, str, str], tuple[str, ...]] = attrs.field(factory=dict)
    """By pod uid, container and resource."""

    def counts(self) -> dict[str, tuple[int, int]]:
        """By resource: how many there are, and how many are healthy."""
        return {
            resource: (len(found), sum(found.values())) for resource, found in self.devices.items()
        }

    def lost(self, resource: str) -> None:
        """Its plugin is gone: none can be given away, but they are not forgotten."""
        self.devices[resource] = dict.fromkeys(self.devices.get(resource, ()), False)

    def taken(self, resource: str) -> set[str]:
        return {each for (_, _, own), ids in self._taken.items() if own == resource for each in ids}

    def held(self, pod: str, container: str, resource: str) -> tuple[str, ...]:
        return self._taken.get((pod, container, resource), ())

    def take(self, pod: str, container: str, resource: str, amount: int) -> tuple[str, ...]:
        """The devices of a container, those that it has or free ones. Raises NoDevices."""
        key = pod, container, resource
        if len(self._taken.get(key, ())) == amount:
            return self._taken[key]
        self._taken.pop(key, None)
        taken = self.taken(resource)
        free = sorted(
            each
            for each, healthy in self.devices.get(resource, {}).items()
            if healthy and each not in taken
        )
        if len(free) < amount:
            raise NoDevices(
                f"requested number of devices unavailable for {resource}. Requested: {amount}, "
                f"Available: {len(free)}"
            )
        self._taken[key] = tuple(free[:amount])
        return self._taken[key]

    def keep_only(self, pods: Container[str]) -> bool:
        """Take back what pods had that are gone; whether there was any."""
        gone = [key for key in self._taken if key[0] not in pods]
        for key in gone:
            del self._taken[key]
        return bool(gone)

    def save(self, path: Path) -> None:
        """Raises OSError."""
        taken = [[*key, list(ids)] for key, ids in self._taken.items()]
        known = {resource: sorted(found) for resource, found in self.devices.items()}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"taken": taken, "devices": known}))
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """What an earlier kubelet knew and gave away; nothing where there was none.

        Devices count as lost until their plugins register again.
        """
        try:
            stored: dict[str, Any] = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return
        for pod, container, resource, ids in stored["taken"]:
            self._taken[pod, container, resource] = tuple(ids)
        for resource, ids in stored["devices"].items():
            self.devices[resource] = dict.fromkeys(ids, False)
