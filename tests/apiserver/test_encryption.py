"""Values encrypted in the store: formats, keys that change, resources that are chosen."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from k8slite.apiserver.objects import parse_key
from k8slite.apiserver.store.encrypted import EncryptedStore, Unreadable
from k8slite.apiserver.store.encryption import Undecipherable, read_encryption
from k8slite.apiserver.store.memory import MemoryStore
from tests.apiserver.support import open_session, open_test_apiserver

SECRETS = "/api/v1/namespaces/default/secrets"
KEY = b"/registry/secrets/default/s"


def keys(*names: str, size: int = 32) -> dict[str, Any]:
    return {
        "keys": [
            {"name": name, "secret": base64.b64encode(name[-1:].encode() * size).decode()}
            for name in names
        ]
    }


def configuration(*rules: tuple[list[str], list[Any]]) -> str:
    return yaml.safe_dump(
        {
            "kind": "EncryptionConfiguration",
            "apiVersion": "apiserver.config.k8s.io/v1",
            "resources": [{"resources": names, "providers": given} for names, given in rules],
        }
    )


def chosen(*providers: Any) -> Any:
    return read_encryption(configuration((["secrets"], list(providers)))).of("", "secrets")


ALL = [
    {"aesgcm": keys("k1", size=16)}, {"aesgcm": keys("k1")}, {"aescbc": keys("k1")},
    {"secretbox": keys("k1")}, {"identity": {}},
]  # fmt: skip


@pytest.mark.parametrize("provider", ALL, ids=lambda p: next(iter(p)))
@given(value=st.binary(max_size=100))
def test_what_is_sealed_opens_again(provider: Any, value: bytes) -> None:
    if "secretbox" in provider:
        pytest.importorskip("nacl")
    if value.startswith(b"k8s:enc:"):
        return
    by = chosen(provider)
    sealed = by.seal(value, KEY)
    assert by.open(sealed, KEY) == (value, False)
    (name,) = provider
    if name != "identity":
        assert sealed.startswith(f"k8s:enc:{name}:v1:k1:".encode())
        assert sealed != by.seal(value, KEY)  # never twice the same
        with pytest.raises(Undecipherable, match=f"default/s: k8s:enc:{name}:v1:k1:"):
            by.open(sealed[:-1] + bytes([sealed[-1] ^ 1]) if name != "aescbc" else sealed[:-1], KEY)


def test_what_another_server_has_written_is_read() -> None:
    """A value that was sealed by the Go functions' own rules: nonce, then AES-GCM over the path."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, secret = b"n" * 12, b"1" * 32
    stored = b"k8s:enc:aesgcm:v1:k1:" + nonce + AESGCM(secret).encrypt(nonce, b"value", KEY)
    by = chosen({"aesgcm": keys("k1")})
    assert by.open(stored, KEY) == (b"value", False)
    with pytest.raises(Undecipherable):
        by.open(stored, b"/registry/secrets/default/t")  # it was moved


def test_keys_in_order() -> None:
    old, new = (
        chosen({"aescbc": keys("k1")}),
        chosen({"aescbc": keys("k2", "k1")}, {"identity": {}}),
    )
    assert new.open(old.seal(b"v", KEY), KEY) == (b"v", True)
    assert new.open(new.seal(b"v", KEY), KEY) == (b"v", False)
    assert new.open(b"plain", KEY) == (b"plain", True)
    with pytest.raises(Undecipherable, match="identity is no provider"):
        old.open(b"plain", KEY)
    with pytest.raises(Undecipherable, match="aescbc:v1:k2, no such provider"):
        old.open(new.seal(b"v", KEY), KEY)
    with pytest.raises(Undecipherable, match="no such provider"):
        chosen({"identity": {}}).open(new.seal(b"v", KEY), KEY)


def test_which_rule_is_for_which_resource() -> None:
    found = read_encryption(
        configuration(
            (["secrets", "gadgets.example.org"], [{"aescbc": keys("k1")}]),
            (["*.apps"], [{"aescbc": keys("k2")}]),
            (["configmaps"], [{"identity": {}}]),
            (["*."], [{"aescbc": keys("k3")}]),
        )
    )
    for group, plural, prefix in (
        ("", "secrets", b"k8s:enc:aescbc:v1:k1:"),
        ("example.org", "gadgets", b"k8s:enc:aescbc:v1:k1:"),
        ("example.org", "others", b"v"),
        ("apps", "deployments", b"k8s:enc:aescbc:v1:k2:"),
        ("", "configmaps", b"v"),
        ("", "pods", b"k8s:enc:aescbc:v1:k3:"),
    ):
        assert found.of(group, plural).seal(b"v", KEY).startswith(prefix)


@pytest.mark.parametrize(
    ("providers", "words"),
    [
        ([], "resources[0].providers: Required value"),
        ([{"kms": {}}], 'Unsupported value: "kms"'),
        ([{"aescbc": {}}], "providers[0].aescbc.keys: Required value"),
        ([{"aescbc": keys("k1", size=16)}], "keys[0].secret: Invalid value: 16 bytes"),
        ([{"aescbc": {"keys": [{"name": "a", "secret": "!"}]}}], "must be base64"),
        ([{"aescbc": keys("a:b")}], "keys[0].name"),
        ([{"aescbc": {}, "identity": {}}], "exactly one"),
    ],
)
def test_what_is_wrong_with_a_configuration(providers: list[Any], words: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_encryption(configuration((["secrets"], providers)))
    assert words in str(refused.value)


async def test_through_the_api(tmp_path: Path) -> None:
    store, file = MemoryStore(), tmp_path / "encryption.yaml"

    async def stored() -> bytes:
        found = await store.get(KEY)
        assert found is not None
        return found.value

    body = {"metadata": {"name": "s"}, "data": {"a": "c2VjcmV0"}}
    async with open_test_apiserver(store) as server, open_session(server) as session:
        assert (await session.call("POST", SECRETS, body))[0] == 201
    assert b"c2VjcmV0" in await stored()
    for providers, prefix in (
        ([{"aesgcm": keys("k1")}, {"identity": {}}], b"k8s:enc:aesgcm:v1:k1:"),
        ([{"aescbc": keys("k2")}, {"aesgcm": keys("k1")}], b"k8s:enc:aescbc:v1:k2:"),
        ([{"identity": {}}, {"aescbc": keys("k2")}], b'{"metadata"'),
    ):
        file.write_text(configuration((["secrets"], providers)))
        async with (
            open_test_apiserver(store, encryption_config=str(file)) as server,
            open_session(server) as session,
        ):
            assert not (await stored()).startswith(prefix)
            status, found = await session.call("GET", f"{SECRETS}/s")
            assert (status, found["data"]) == (200, body["data"])
            version = found["metadata"]["resourceVersion"]
            for again in range(2):  # a write that changes nothing: with the new key, once
                _, found = await session.call("PUT", f"{SECRETS}/s", found)
                assert (await stored()).startswith(prefix)
                assert (found["metadata"]["resourceVersion"] != version) == (not again)
                version = found["metadata"]["resourceVersion"]
            found["data"]["b"] = "Yg=="
            _, found = await session.call("PUT", f"{SECRETS}/s", found)
            _, listed = await session.call("GET", SECRETS)
            assert [each["data"] for each in listed["items"]] == [found["data"]]
            body["data"] = found["data"] = {"a": "c2VjcmV0"}
            await session.call("PUT", f"{SECRETS}/s", found)


async def test_a_missing_key_is_told(tmp_path: Path) -> None:
    inner = MemoryStore()
    ours = EncryptedStore(
        inner, read_encryption(configuration((["*.*"], [{"aescbc": keys("k1")}])))
    )
    from k8slite.apiserver.store.base import Write

    await ours.commit([Write(KEY, b"v", 0)])
    assert parse_key(KEY)[1] == "secrets"
    others = EncryptedStore(
        inner, read_encryption(configuration((["secrets"], [{"aescbc": keys("k9")}])))
    )
    with pytest.raises(Unreadable, match="/registry/secrets/default/s: no matching prefix found"):
        await others.get(KEY)
