"""Devices of the machine, as OCI's configuration lists them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any

from k8slite.kubelet.runtime.interface import ConfigFailure, Device

__all__ = ["device_nodes"]


def device_nodes(devices: Iterable[Device]) -> list[dict[str, Any]]:
    """As OCI lists them. Raises ConfigFailure for what is no device of this machine."""
    found = []
    for device in devices:
        try:
            info = os.stat(device.host_path)
        except OSError as error:
            raise ConfigFailure(f"device {device.host_path}: {error.strerror}") from None
        kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
        kind = kinds.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            raise ConfigFailure(f"{device.host_path} is no device")
        numbers = {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
        mode = {"fileMode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid}
        found.append({"path": device.container_path, "type": kind, **numbers, **mode})
    return found
