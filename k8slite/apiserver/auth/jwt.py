"""Service-account tokens: JSON Web Tokens signed with RS256 or ES256. Pure but for `now`."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from k8slite.apiserver.auth.jose import InvalidToken, read_token, verifies

__all__ = ["LEGACY_ISSUER", "InvalidToken", "Signer", "Verifier"]

ALGORITHMS = ("RS256", "ES256")
LEGACY_ISSUER = "kubernetes/serviceaccount"
"""Of tokens that Secrets hold; they have no end."""

_COORDINATE_BYTES = 32


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _key_id(public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _encode(hashlib.sha256(der).digest()).decode()


class Signer:
    """Signs claims with one private key (PEM, RSA or P-256). Raises ValueError for others."""

    def __init__(self, private_key: bytes) -> None:
        key = serialization.load_pem_private_key(private_key, None)
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise ValueError("the service-account key must be an RSA or an EC P-256 key")
        self._key = key
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        header = {"alg": algorithm, "kid": _key_id(key.public_key())}
        self._header = _encode(orjson.dumps(header))

    def public_key(self) -> bytes:
        """The PEM that verifies what this signs."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims: dict[str, Any]) -> str:
        """The compact form of a token with these claims."""
        signed = self._header + b"." + _encode(orjson.dumps(claims))
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            r, s = utils.decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
        return (signed + b"." + _encode(signature)).decode()


class Verifier:
    """Checks signatures against a set of public keys (PEM)."""

    def __init__(self, public_keys: tuple[bytes, ...]) -> None:
        self._keys: list[rsa.RSAPublicKey | ec.EllipticCurvePublicKey] = []
        for pem in public_keys:
            key = serialization.load_pem_public_key(pem)
            if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
                raise ValueError("service-account public keys must be RSA or EC P-256 keys")
            self._keys.append(key)

    def key_set(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set."""
        return {"keys": [_web_key(key) for key in self._keys]}

    def claims(self, text: str, now: float) -> dict[str, Any]:
        """The claims of a token that is ours and in time. Raises InvalidToken."""
        token = read_token(text)
        if token.algorithm not in ALGORITHMS or not any(verifies(k, token) for k in self._keys):
            raise InvalidToken("the signature is not of a known key")
        claims = token.claims
        if claims.get("iss") == LEGACY_ISSUER and "exp" not in claims:
            return claims
        if not claims.get("nbf", 0) <= now < claims.get("exp", 0):
            raise InvalidToken("token has expired")
        return claims


def _web_key(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> dict[str, str]:
    common = {"use": "sig", "kid": _key_id(key)}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {
            **common,
            "kty": "RSA",
            "alg": "RS256",
            "n": _number(numbers.n, (numbers.n.bit_length() + 7) // 8),
            "e": _number(numbers.e, 3),
        }
    point = key.public_numbers()
    return {
        **common,
        "kty": "EC",
        "alg": "ES256",
        "crv": "P-256",
        "x": _number(point.x, _COORDINATE_BYTES),
        "y": _number(point.y, _COORDINATE_BYTES),
    }


def _number(value: int, size: int) -> str:
    return _encode(value.to_bytes(size, "big")).decode()
