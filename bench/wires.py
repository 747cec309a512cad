"""What lies between members: nothing, or a relay that makes their messages take their time.

Each member is reached through one relay, whatever the store, because etcd insists that all its
members know a member by the same address. Clients reach members directly.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs

from netsim.relay import open_relay
from raftkv.host import parse_address
from raftkv.os_host import OsHost

__all__ = ["NO_WIRES", "PRESETS", "Wires", "parse_latency"]

PRESETS = {"lan": (0.25, 0.1), "region": (1.0, 0.3), "wan": (25.0, 5.0)}
"""One way, in milliseconds, and up to how much more: a rack, the zones of a region, a continent."""
OTHERS = "others"


@attrs.frozen
class Wires:
    """One way's latency and jitter, in milliseconds: a chunk takes latency + [0, jitter)."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0

    @contextlib.asynccontextmanager
    async def open(self, listens: Sequence[str], seed: int = 1) -> AsyncIterator[list[str]]:
        """For addresses at which members listen, those at which others find them."""
        if not (self.latency_ms or self.jitter_ms) or len(listens) == 1:
            yield list(listens)
            return
        net: Any = OsHost().net  # the relay has its own type for addresses
        async with open_relay(seed, net) as relay:
            seen = []
            for number, listen in enumerate(listens, 1):
                route = await relay.route(OTHERS, f"m{number}", parse_address(listen))
                seen.append(f"{route.host}:{route.port}")
            hosts = [f"m{number}" for number in range(1, len(listens) + 1)]
            slow = self.latency_ms / 1000, self.jitter_ms / 1000
            with relay.delay(OTHERS, hosts, *slow), relay.delay(hosts, OTHERS, *slow):
                yield seen


NO_WIRES = Wires()


def parse_latency(text: str) -> Wires:
    """`lan`, `region`, `wan`, `MS` or `MS:JITTER_MS`. Raises ValueError, for a user to read."""
    if text in PRESETS:
        return Wires(*PRESETS[text])
    latency, _, jitter = text.partition(":")
    try:
        wires = Wires(float(latency), float(jitter or 0))
    except ValueError:
        wires = Wires(-1)
    if not (0 <= wires.latency_ms <= 10_000 and 0 <= wires.jitter_ms <= 10_000):
        raise ValueError(
            f"{text!r} is no latency: {', '.join(PRESETS)}, or milliseconds one way, as 5 or 5:1"
        )
    return wires
