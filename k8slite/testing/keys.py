"""A key for signing service account tokens in simulations, computed instead of stored.

Everybody can compute it: it protects nothing. RSA with PKCS #1 v1.5, because its signatures are
the same each time, where an elliptic curve's are drawn anew: one seed must give one trace.
"""

from __future__ import annotations

import functools
import random

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["simulation_key"]

PRIME_BITS = 512
EXPONENT = 65537
ROUNDS = 24


@functools.cache
def simulation_key() -> bytes:
    """The private key, PEM."""
    rng = random.Random(1)
    p = q = 0
    while p == q:
        p, q = sorted((_prime(rng), _prime(rng)), reverse=True)
    d = pow(EXPONENT, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _prime(rng: random.Random) -> int:
    while True:
        # The two highest bits set: the product of two such has twice as many bits.
        candidate = rng.getrandbits(PRIME_BITS) | 3 << PRIME_BITS - 2 | 1
        if candidate % EXPONENT != 1 and _is_prime(candidate, rng):
            return candidate


def _is_prime(number: int, rng: random.Random) -> bool:
    """Miller and Rabin's test; wrong once in 4 ** ROUNDS."""
    if any(number % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)):
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(ROUNDS):
        x = pow(rng.randrange(2, number - 1), odd, number)
        if x in (1, number - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % number
            if x == number - 1:
                break
        else:
            return False
    return True
