"""`python -m k8slite.kubelet.images.child`: one pull in a process of its own.

So that the kubelet neither waits for tar files to be unpacked, nor needs to live in the network in
which registries are found. Input: one JSON object {"store", "image", "credentials"}. Output: one
JSON object, {"id"} or {"error"}. It ends with its parent.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import orjson
import trio

from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.pull import PullFailed, pull
from k8slite.kubelet.images.reference import parse_reference
from k8slite.kubelet.images.store import ImageStore
from raftkv.os_host import TcpNet

__all__ = ["main"]


async def _pull(request: dict[str, Any]) -> dict[str, Any]:
    credentials = [Credential(**each) for each in request["credentials"]]
    reference = parse_reference(request["image"])
    try:
        image = await pull(ImageStore(request["store"]), reference, credentials, TcpNet())
    except PullFailed as failure:
        return {"error": str(failure)}
    return {"id": image.id}


async def _run(request: dict[str, Any], parent: int) -> dict[str, Any]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_with, parent)
        answer = await _pull(request)
        nursery.cancel_scope.cancel()
    return answer


async def _end_with(parent: int) -> None:
    """PR_SET_PDEATHSIG would be about the parent's thread that started us, which may end sooner."""
    try:
        handle = os.pidfd_open(parent)
    except ProcessLookupError:
        sys.exit(1)
    await trio.lowlevel.wait_readable(handle)
    sys.exit(1)


def main() -> int:
    answer = trio.run(_run, orjson.loads(sys.stdin.buffer.read()), os.getppid())
    sys.stdout.buffer.write(orjson.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
