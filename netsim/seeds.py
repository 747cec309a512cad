"""From one seed to independent random streams, one a purpose.

Pure. A stream of its own for each link, disk and host keeps runs comparable: one more message on
one link leaves the choices made on the others as they were.
"""

from __future__ import annotations

import hashlib
import random

__all__ = ["stream"]


def stream(seed: int, purpose: str) -> random.Random:
    """The random stream of `purpose` under `seed`; the same in every process."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest()
    return random.Random(int.from_bytes(digest, "big"))
