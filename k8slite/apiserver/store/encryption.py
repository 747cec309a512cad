"""An EncryptionConfiguration (`apiserver.config.k8s.io/v1`): which values are encrypted, and how.

A stored value begins with `k8s:enc:PROVIDER:v1:KEY:`, as kube-apiserver writes it, so that either
can read what the other has written. The first provider of a resource writes; all of them read. Pure
but for the random numbers.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from k8slite.api import yaml_codec
from k8slite.api.meta import Obj

__all__ = ["Chosen", "Encryption", "Undecipherable", "read_encryption"]

PREFIX = b"k8s:enc:"
BLOCK_BITS = 128
BLOCK_BYTES = BLOCK_BITS // 8
NONCE_BYTES = 12


class Undecipherable(Exception):
    """A stored value that no configured key opens; the text says why."""


class Transformer(Protocol):
    """One key of one provider. `key` is where in the store the value lies."""

    def seal(self, value: bytes, key: bytes) -> bytes: ...

    def open(self, sealed: bytes, key: bytes) -> bytes:
        """Raises ValueError."""
        ...


class AesGcm:
    """Bound to its place: a value that was moved to another key can't be opened."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(secret)

    def seal(self, value: bytes, key: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, key)

    def open(self, sealed: bytes, key: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], key)
        except InvalidTag:
            raise ValueError("cipher: message authentication failed") from None


class AesCbc:
    def __init__(self, secret: bytes) -> None:
        self._algorithm = algorithms.AES(secret)

    def seal(self, value: bytes, key: bytes) -> bytes:
        vector = os.urandom(BLOCK_BYTES)
        padder = padding.PKCS7(BLOCK_BITS).padder()
        encryptor = Cipher(self._algorithm, modes.CBC(vector)).encryptor()
        padded = padder.update(value) + padder.finalize()
        return vector + encryptor.update(padded) + encryptor.finalize()

    def open(self, sealed: bytes, key: bytes) -> bytes:
        if len(sealed) < 2 * BLOCK_BYTES or len(sealed) % BLOCK_BYTES:
            raise ValueError("the stored data is not a whole number of blocks")
        decryptor = Cipher(self._algorithm, modes.CBC(sealed[:BLOCK_BYTES])).decryptor()
        unpadder = padding.PKCS7(BLOCK_BITS).unpadder()
        padded = decryptor.update(sealed[BLOCK_BYTES:]) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()


class SecretBox:
    """XSalsa20 and Poly1305, by PyNaCl, the extra `secretbox`."""

    def __init__(self, secret: bytes) -> None:
        try:
            from nacl.secret import SecretBox as Box
        except ImportError:
            raise ValueError("secretbox needs PyNaCl: pip install k8slite[secretbox]") from None
        self._box = Box(secret)

    def seal(self, value: bytes, key: bytes) -> bytes:
        return bytes(self._box.encrypt(value))

    def open(self, sealed: bytes, key: bytes) -> bytes:
        from nacl.exceptions import CryptoError

        try:
            return bytes(self._box.decrypt(sealed))
        except CryptoError as error:
            raise ValueError(str(error)) from None


PROVIDERS: dict[str, tuple[Callable[[bytes], Transformer], tuple[int, ...]]] = {
    "aesgcm": (AesGcm, (16, 24, 32)),
    "aescbc": (AesCbc, (32,)),
    "secretbox": (SecretBox, (32,)),
}
"""How each is made, and the sizes of its keys in bytes."""


@frozen
class Chosen:
    """The keys of one resource, by the prefix of what they have written; b"": as it is."""

    keys: tuple[tuple[bytes, Transformer | None], ...]

    def seal(self, value: bytes, key: bytes) -> bytes:
        prefix, transformer = self.keys[0]
        return value if transformer is None else prefix + transformer.seal(value, key)

    def open(self, stored: bytes, key: bytes) -> tuple[bytes, bool]:
        """The value, and whether it would be written otherwise now. Raises Undecipherable."""
        for number, (prefix, transformer) in enumerate(self.keys):
            if transformer is None:
                if not stored.startswith(PREFIX):
                    return stored, number > 0
            elif stored.startswith(prefix):
                try:
                    return transformer.open(stored[len(prefix) :], key), number > 0
                except ValueError as error:
                    raise Undecipherable(f"{key.decode()}: {prefix.decode()}: {error}") from None
        what = "not encrypted, and identity is no provider of it"
        if stored.startswith(PREFIX):
            provider = stored[: len(PREFIX) + 80].split(b":")[2:5]
            what = f"encrypted by {b':'.join(provider).decode(errors='replace')}, no such provider"
        raise Undecipherable(f"{key.decode()}: no matching prefix found: it is {what}")


PLAIN = Chosen(((b"", None),))


@frozen
class Encryption:
    """Rules in order: the resource (`secrets`, `deployments.apps`, `*.`, `*.apps`, `*.*`)."""

    rules: tuple[tuple[str, Chosen], ...]

    def of(self, group: str, plural: str) -> Chosen:
        """Of resources that no rule names nothing is encrypted, and nothing encrypted is read."""
        whole = f"{plural}.{group}" if group else plural
        for resource, chosen in self.rules:
            if resource in (whole, f"*.{group}", "*.*"):
                return chosen
        return PLAIN


def read_encryption(text: str) -> Encryption:
    """Raises ValueError that names the field."""
    document = yaml_codec.load(text)
    kind, version = "EncryptionConfiguration", "apiserver.config.k8s.io/v1"
    if not isinstance(document, dict) or (document.get("kind"), document.get("apiVersion")) != (
        kind, version,
    ):  # fmt: skip
        raise ValueError(f"must be an {version} {kind}")
    rules: list[tuple[str, Chosen]] = []
    given = document.get("resources") or []
    if not given:
        raise ValueError("resources: Required value: at least one is needed")
    for i, each in enumerate(given):
        at = f"resources[{i}]"
        chosen = _chosen(each.get("providers") or [], f"{at}.providers")
        resources = each.get("resources") or []
        if not resources:
            raise ValueError(f"{at}.resources: Required value")
        for j, resource in enumerate(resources):
            where = f"{at}.resources[{j}]"
            if (
                resource == "*"
                or resource != resource.lower()
                or resource == "events.events.k8s.io"
            ):
                raise ValueError(f'{where}: Invalid value: "{resource}": use *.* for all, '
                                 "*.GROUP for a group, PLURAL.GROUP for one")  # fmt: skip
            rules.append((resource, chosen))
    return Encryption(tuple(rules))


def _chosen(providers: list[Obj], at: str) -> Chosen:
    if not providers:
        raise ValueError(f"{at}: Required value: at least one provider is needed")
    keys: list[tuple[bytes, Transformer | None]] = []
    for i, provider in enumerate(providers):
        if len(provider) != 1:
            raise ValueError(
                f"{at}[{i}]: must have exactly one of {', '.join(PROVIDERS)}, identity"
            )
        ((name, settings),) = provider.items()
        if name == "identity":
            keys.append((b"", None))
        elif name in PROVIDERS:
            keys += _keys(name, settings or {}, f"{at}[{i}].{name}")
        else:
            known = ", ".join(PROVIDERS)
            raise ValueError(f'{at}[{i}]: Unsupported value: "{name}": there are {known}, identity')
    return Chosen(tuple(keys))


def _keys(provider: str, settings: Any, at: str) -> list[tuple[bytes, Transformer | None]]:
    make, sizes = PROVIDERS[provider]
    given = settings.get("keys") or []
    found: list[tuple[bytes, Transformer | None]] = []
    if not given:
        raise ValueError(f"{at}.keys: Required value: at least one key is needed")
    for i, each in enumerate(given):
        name, where = each.get("name") or "", f"{at}.keys[{i}]"
        if not name or ":" in name:
            raise ValueError(f'{where}.name: Invalid value: "{name}": needed, without a colon')
        try:
            secret = base64.b64decode(each.get("secret") or "", validate=True)
        except binascii.Error:
            raise ValueError(f"{where}.secret: must be base64") from None
        if len(secret) not in sizes:
            wanted = ", ".join(map(str, sizes))
            raise ValueError(f"{where}.secret: Invalid value: {len(secret)} bytes, must be of "
                             f"{wanted}")  # fmt: skip
        found.append((f"k8s:enc:{provider}:v1:{name}:".encode(), make(secret)))
    return found
