"""Pod addresses where every pod shares the machine's network: one loopback address a pod.

Owns the table of who has which address, in memory or in a file that outlives the kubelet. Linux
answers for all of 127.0.0.0/8 without any configuration, so nothing has to be set up or taken down.
The protocol it fulfils is `PodNetwork` (in `runtime.interface`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
from pathlib import Path

from k8slite.kubelet.runtime.interface import NetworkFailure, PodNetwork

__all__ = ["LoopbackNetwork", "PodNetwork"]


class LoopbackNetwork:
    """Addresses from one range, such as `127.244.1.0/24`, handed out in turn.

    An address is not given again before the range has been gone through, so that a client with
    an old address does not reach a new pod.
    """

    def __init__(self, pod_cidr: str, directory: str | Path | None = None) -> None:
        self._network = ipaddress.ip_network(pod_cidr)
        self._file = None if directory is None else Path(directory) / "addresses.json"
        self._addresses: dict[str, str] = {}
        self._last = 0
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                stored = json.loads(self._file.read_text())
                self._addresses, self._last = stored["addresses"], stored["last"]

    async def attach(self, pod_id: str, netns: str | None) -> str:
        if pod_id not in self._addresses:
            self._addresses[pod_id] = self._next()
            self._store()
        return self._addresses[pod_id]

    async def detach(self, pod_id: str, netns: str | None) -> None:
        if self._addresses.pop(pod_id, None) is not None:
            self._store()

    def _next(self) -> str:
        taken = set(self._addresses.values())
        usable = self._network.num_addresses - 2  # neither the first nor the last
        for step in range(1, usable + 1):
            number = (self._last + step - 1) % usable + 1
            address = str(self._network[number])
            if address not in taken:
                self._last = number
                return address
        raise NetworkFailure(f"no address left in {self._network}: {len(taken)} pods have one")

    def _store(self) -> None:
        if self._file is None:
            return
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"addresses": self._addresses, "last": self._last}))
        os.replace(temporary, self._file)
