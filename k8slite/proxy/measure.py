"""How long a table takes to become rules: `python -m k8slite.proxy.measure`, run by `bench proxy`.

Writes into the network namespace in which it is started, which should be a fresh one, and prints
JSON: seconds of the first sync, seconds of each change of one endpoint (from changed objects to
live rules), and the processor time and memory of this process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from typing import Any, Final

import trio

from k8slite.api.meta import Obj
from k8slite.proxy.table import TableBuilder
from k8slite.proxy.writer import WriteFailed, Writer

__all__ = ["main", "make_objects"]

NODES: Final = 10


def make_objects(services: int, endpoints: int, rng: random.Random) -> tuple[list[Obj], list[Obj]]:
    """Services of one port, and a slice for each."""
    made = [_service(number) for number in range(services)]
    return made, [_slice(number, endpoints, rng) for number in range(services)]


def _service(number: int) -> Obj:
    ip = f"10.96.{number // 250}.{number % 250 + 1}"
    return {
        "metadata": {"name": f"service-{number}", "namespace": "default"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    }


def _slice(number: int, endpoints: int, rng: random.Random) -> Obj:
    ends = [
        {
            "addresses": [
                f"10.{200 + rng.randrange(50)}.{rng.randrange(250)}.{rng.randrange(250)}"
            ],
            "nodeName": f"node-{rng.randrange(NODES)}",
            "conditions": {"ready": True},
        }
        for _ in range(endpoints)
    ]
    return {
        "metadata": {
            "name": f"service-{number}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": f"service-{number}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": ends,
    }


def _writer(mode: str) -> Writer:
    if mode == "iptables":
        from k8slite.proxy.iptables import IptablesWriter

        return IptablesWriter("10.192.0.0/10")
    from k8slite.proxy.nftables import NftablesWriter

    return NftablesWriter("10.192.0.0/10")


async def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(arguments.seed)
    services, slices = make_objects(arguments.services, arguments.endpoints, rng)
    builder, writer = TableBuilder("node-1"), _writer(arguments.mode)
    started = time.perf_counter()
    await writer.sync(builder.build(services, slices))
    first = time.perf_counter() - started
    changes = []
    for _ in range(arguments.changes):
        number = rng.randrange(arguments.services)
        old, new = slices[number], _slice(number, 1, rng)
        slices[number] = {**old, "endpoints": new["endpoints"] + old["endpoints"][1:]}
        started = time.perf_counter()
        await writer.sync(builder.build(services, slices))
        changes.append(time.perf_counter() - started)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "mode": arguments.mode,
        "services": arguments.services,
        "endpoints": arguments.endpoints,
        "first_seconds": first,
        "change_seconds": changes,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "max_rss_bytes": used.ru_maxrss * 1024,
    }


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("iptables", "nftables"), required=True)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=5)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    try:
        print(json.dumps(trio.run(_measure, parser.parse_args())))
    except WriteFailed as error:
        sys.stderr.write(f"measure: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
