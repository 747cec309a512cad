"""The metadata that a server gives: names, uids, timestamps. Pure but for `rng`."""

from __future__ import annotations

import random
import uuid

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, format_time

__all__ = ["fill_created", "new_name", "new_uid"]

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX = 5
_NAME_MAX = 63


def new_uid(rng: random.Random) -> str:
    """A random UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def new_name(prefix: str, rng: random.Random) -> str:
    """A name for a generateName."""
    suffix = "".join(rng.choice(_ALPHABET) for _ in range(_SUFFIX))
    return prefix[: _NAME_MAX - _SUFFIX] + suffix


def fill_created(kind: Kind, obj: Obj, namespace: str, now: float, rng: random.Random) -> None:
    """Give a new object its system fields; what the client said about them is dropped."""
    metadata = obj["metadata"]
    for name in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        metadata.pop(name, None)
    if kind.namespaced:
        metadata["namespace"] = namespace
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = new_name(metadata["generateName"], rng)
    metadata["uid"] = new_uid(rng)
    metadata["creationTimestamp"] = format_time(now)
