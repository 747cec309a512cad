"""What a container gets with its devices. Pure."""

from __future__ import annotations

import attrs

from k8slite.kubelet.runtime.interface import Device, Mount

__all__ = ["Grant"]


@attrs.frozen
class Grant:
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()

    def __add__(self, other: Grant) -> Grant:
        return Grant(self.env + other.env, self.mounts + other.mounts, self.devices + other.devices)
