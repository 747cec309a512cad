"""Service-account tokens: signed by us, refused when changed, expired or of another signer."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from k8slite.apiserver.auth.jwt import InvalidToken, Signer, Verifier

CLAIMS = {"sub": "system:serviceaccount:default:x", "nbf": 100, "exp": 200}


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


KEYS = {
    "ES256": pem(ec.generate_private_key(ec.SECP256R1())),
    "RS256": pem(rsa.generate_private_key(65537, 2048)),
}


@pytest.mark.parametrize("algorithm", list(KEYS))
def test_a_token_is_good_in_its_time_and_unchanged(algorithm: str) -> None:
    signer = Signer(KEYS[algorithm])
    verifier = Verifier((signer.public_key(),))
    token = signer.sign(CLAIMS)
    assert verifier.claims(token, 150) == CLAIMS
    assert verifier.key_set()["keys"][0]["alg"] == algorithm
    header, claims, signature = token.split(".")
    other = Signer(KEYS["RS256" if algorithm == "ES256" else "ES256"]).sign(CLAIMS)
    for bad, now in (
        (token, 99),
        (token, 200),
        (f"{header}.{claims}x.{signature}", 150),
        (f"{header}.{claims}.{signature[:-4]}AAAA", 150),
        (f"{header}.{claims}.", 150),
        (f"{header}.{claims}", 150),
        (other, 150),
        ("a.b.c", 150),
        ("", 150),
    ):
        with pytest.raises(InvalidToken):
            verifier.claims(bad, now)


def test_no_algorithm_is_no_signature() -> None:
    import base64

    import orjson

    signer = Signer(KEYS["ES256"])
    verifier = Verifier((signer.public_key(),))
    _, claims, _ = signer.sign(CLAIMS).split(".")
    header = base64.urlsafe_b64encode(orjson.dumps({"alg": "none"})).rstrip(b"=").decode()
    with pytest.raises(InvalidToken):
        verifier.claims(f"{header}.{claims}.", 150)
