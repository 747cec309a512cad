"""JSON Web Keys of others, and signatures by them: RS, PS and ES with 256, 384 and 512. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

__all__ = ["InvalidToken", "Token", "read_keys", "read_token", "verifies"]

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512(),
}  # fmt: skip
_CURVES: dict[str, tuple[ec.EllipticCurve, str]] = {
    "P-256": (ec.SECP256R1(), "ES256"),
    "P-384": (ec.SECP384R1(), "ES384"),
    "P-521": (ec.SECP521R1(), "ES512"),
}
_ALGORITHM = {curve.name: algorithm for curve, algorithm in _CURVES.values()}


class InvalidToken(Exception):
    """Not a token that anybody here would take: malformed, of another signer, or out of time."""


@frozen
class Token:
    """A JSON Web Token, taken apart and not verified."""

    algorithm: str
    key_id: str
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read_token(text: str) -> Token:
    """Raises InvalidToken."""
    parts = text.split(".")
    if len(parts) != 3:
        raise InvalidToken("not a JSON Web Token")
    try:
        header, claims = (orjson.loads(_decode(part)) for part in parts[:2])
        signature = _decode(parts[2])
    except (ValueError, binascii.Error) as error:
        raise InvalidToken("malformed token") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidToken("malformed token")
    algorithm, key_id = str(header.get("alg", "")), str(header.get("kid", ""))
    return Token(algorithm, key_id, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def read_keys(document: Any) -> dict[str, PublicKey]:
    """The keys of a JSON Web Key Set by their ids, those that we can use. Raises ValueError."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JSON Web Key Set")
    keys: dict[str, PublicKey] = {}
    for number, jwk in enumerate(document["keys"]):
        key = _public_key(jwk) if isinstance(jwk, dict) else None
        if key is not None and jwk.get("use", "sig") == "sig":
            keys[str(jwk.get("kid", number))] = key
    return keys


def _public_key(jwk: dict[str, Any]) -> PublicKey | None:
    try:
        if jwk.get("kty") == "RSA":
            return rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
        if jwk.get("kty") == "EC" and jwk.get("crv") in _CURVES:
            curve, _ = _CURVES[jwk["crv"]]
            x, y = _number(jwk["x"]), _number(jwk["y"])
            return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    return None


def verifies(key: PublicKey, token: Token) -> bool:
    """Has this key signed it, in the way that the token says and that fits the key?"""
    family, digest = token.algorithm[:2], _HASHES.get(token.algorithm[2:])
    if digest is None:
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if family == "RS":
                key.verify(token.signature, token.signed, padding.PKCS1v15(), digest)
            elif family == "PS":
                pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
                key.verify(token.signature, token.signed, pss, digest)
            else:
                return False
            return True
        size = (key.curve.key_size + 7) // 8
        if _ALGORITHM.get(key.curve.name) != token.algorithm or len(token.signature) != 2 * size:
            return False
        r, s = (int.from_bytes(token.signature[i : i + size], "big") for i in (0, size))
        key.verify(utils.encode_dss_signature(r, s), token.signed, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _number(text: str) -> int:
    return int.from_bytes(_decode(text), "big")
