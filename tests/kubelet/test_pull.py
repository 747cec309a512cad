"""Images from registries: the protocol, who we are, faults on the way."""

from __future__ import annotations

import base64
import io
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import trio

from k8slite.cli.output import CommandFailed
from k8slite.cli.pulling import Bars, credentials_for
from k8slite.kubelet.images import pull as pulling
from k8slite.kubelet.images.archive import ARCHITECTURES
from k8slite.kubelet.images.challenge import Challenge, parse_challenges
from k8slite.kubelet.images.credentials import (
    BadCredentials,
    Credential,
    Keyring,
    read_config,
    read_secret,
)
from k8slite.kubelet.images.pull import Progress, PullFailed, pull
from k8slite.kubelet.images.puller import Puller, PullError
from k8slite.kubelet.images.reference import parse_reference
from k8slite.kubelet.images.registry import base_url
from k8slite.kubelet.images.store import ImageStore, StoredImage
from raftkv.os_host import TcpNet
from tests.kubelet.archives import digest, directory, docker_archive, member, tar
from tests.kubelet.registry import FakeRegistry, open_registry

LOWER = tar(directory("etc"), member("etc/name", b"lower"))
UPPER = tar(member("etc/more", b"upper" * 50_000))
HERE = ARCHITECTURES.get(platform.machine(), platform.machine())
ANN = Credential("ann", "secret")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "RETRY_SECONDS", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


async def fetch(
    store: ImageStore,
    registry: FakeRegistry,
    name: str = "team/app:1",
    *who: Credential,
    **how: Any,
) -> StoredImage:
    reference = parse_reference(f"{registry.domain}/{name}")
    with trio.fail_after(30):
        return await pull(store, reference, who, TcpNet(), **how)


async def test_an_image_is_pulled_once(store: ImageStore) -> None:
    with open_registry() as registry:
        top = registry.push("team/app", "1", [LOWER, UPPER], Cmd=["run"], Env=["A=1"])
        told: list[Progress] = []
        image = await fetch(store, registry, report=told.append)
        assert image.names == (f"{registry.domain}/team/app:1",)
        assert (image.digest, image.pulled) == (top, True)
        assert (image.config.command, image.config.env) == (("run",), ("A=1",))
        assert image.reference_of(image.names[0]) == f"{registry.domain}/team/app@{top}"
        assert {(each.digest, each.done) for each in told} >= {(digest(UPPER), len(UPPER))}
        assert store.resolve(f"{registry.domain}/team/app@{top}") == image
        before = registry.count("/blobs/")
        assert await fetch(store, registry) == image
        assert registry.count("/blobs/") == before, "nothing is fetched again"
    assert ImageStore(store.directory).images() == [image]
    assert not os.listdir(store.temporary)


async def test_layers_that_are_there_are_not_fetched(store: ImageStore) -> None:
    with open_registry() as registry:
        registry.push("team/base", "1", [LOWER])
        await fetch(store, registry, "team/base:1")
        registry.push("team/app", "1", [LOWER, UPPER, LOWER])
        image = await fetch(store, registry)
        assert len(image.layers) == 3
        assert registry.count(digest(LOWER)) == 1


async def test_a_tag_that_moved_and_names_by_digest(store: ImageStore) -> None:
    with open_registry() as registry:
        first = registry.push("team/app", "1", [LOWER])
        old = await fetch(store, registry)
        registry.push("team/app", "1", [LOWER, UPPER])
        new = await fetch(store, registry)
        assert new.id != old.id
        assert store.resolve(f"{registry.domain}/team/app:1") == new
        by_digest = await fetch(store, registry, f"team/app@{first}")
        assert by_digest.id == old.id
        assert by_digest.names == (f"{registry.domain}/team/app@{first}",)


async def test_of_a_list_the_manifest_for_this_machine(store: ImageStore) -> None:
    with open_registry() as registry:
        mine = registry.push("app", "mine", [LOWER])
        registry.push("app", "other", [UPPER])
        top = registry.push_index("app", "1", {"pdp11": "sha256:" + 64 * "0", HERE: mine})
        image = await fetch(store, registry, "app:1")
        assert (len(image.layers), image.digest) == (1, top)
        registry.push_index("app", "2", {"pdp11": mine})
        with pytest.raises(PullFailed, match=f"no match for platform linux/{HERE}"):
            await fetch(store, registry, "app:2")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_who_we_are(auth: str, store: ImageStore) -> None:
    with open_registry(auth=auth) as registry:
        registry.push("team/app", "1", [LOWER])
        for who in ((), (Credential("eve", "guess"),)):
            with pytest.raises(PullFailed, match="pull access denied"):
                await fetch(store, registry, "team/app:1", *who)
        assert not store.images()
        image = await fetch(store, registry, "team/app:1", Credential("eve", "guess"), ANN)
        assert store.images() == [image]
        if auth == "bearer":
            assert registry.count("/token?scope=repository%3Ateam%3Apull") > 0


async def test_tokens_for_tokens(store: ImageStore) -> None:
    with open_registry(auth="bearer") as registry:
        registry.push("team/app", "1", [LOWER])
        await fetch(store, registry, "team/app:1", Credential(identity_token="secret"))
        assert registry.count("grant_type=refresh_token") > 0


@pytest.mark.parametrize(
    "faults", [{"cut"}, {"cut", "ranges"}, {"redirect"}, {"redirect", "cut"}, {"busy"}]
)
async def test_faults_on_the_way(faults: set[str], store: ImageStore) -> None:
    with open_registry(auth="bearer", faults=frozenset(faults)) as registry:
        registry.push("team/app", "1", [LOWER, UPPER])
        image = await fetch(store, registry, "team/app:1", ANN)
        assert store.is_whole(image)


async def test_damage_is_refused(store: ImageStore) -> None:
    with open_registry(faults=frozenset({"damage"})) as registry:
        registry.push("team/app", "1", [LOWER])
        with pytest.raises(PullFailed, match="is damaged: it has digest"):
            await fetch(store, registry)
        registry.manifests["team/app/2"] = b"{"
        with pytest.raises(PullFailed, match="is not JSON"):
            await fetch(store, registry, "team/app:2")
        registry.manifests["team/app/sha256:" + 64 * "a"] = b'{"schemaVersion": 2}'
        with pytest.raises(PullFailed, match="has digest sha256:"):
            await fetch(store, registry, "team/app@sha256:" + 64 * "a")
        for odd in (
            {"schemaVersion": 1},
            {"schemaVersion": 2, "layers": []},
            {"schemaVersion": 2, "config": {"digest": "md5:1"}, "layers": []},
            {"schemaVersion": 2, "config": {"digest": "sha256:../x"}, "layers": []},
        ):
            registry.manifests["team/app/3"] = json.dumps(odd).encode()
            with pytest.raises(PullFailed):
                await fetch(store, registry, "team/app:3")
    assert not store.images()
    assert not os.listdir(store.temporary)


async def test_what_is_not_there(store: ImageStore) -> None:
    with open_registry() as registry:
        with pytest.raises(PullFailed, match=r"app: 1: not found \(404 MANIFEST_UNKNOWN"):
            await fetch(store, registry, "app:1")
        gone = registry.domain
    with pytest.raises(PullFailed, match=r"cannot be reached: .*k8slite image load"):
        await pull(store, parse_reference(f"{gone}/app:1"), (), TcpNet())


async def test_the_pullers_process(store: ImageStore) -> None:
    """Two who want one image share a pull; what fails tells why."""
    with open_registry(auth="basic") as registry:
        registry.push("app", "1", [LOWER])
        name = f"{registry.domain}/app:1"
        found: list[StoredImage] = []
        async with trio.open_nursery() as nursery:
            puller = Puller(store, nursery)

            async def one() -> None:
                found.append(await puller.pull(name, (ANN,)))

            async with trio.open_nursery() as both:
                both.start_soon(one)
                both.start_soon(one)
            assert registry.count("/manifests/") == 2, "refused once, and let in"
            with pytest.raises(PullError, match="not found"):
                await puller.pull(f"{registry.domain}/app:2", (ANN,))
            broken = Puller(store, nursery, ["/nowhere/enter"])
            with pytest.raises(PullError, match="cannot be started"):
                await broken.pull(name, (ANN,))
        assert found == 2 * store.images()


async def test_what_was_loaded_can_be_pulled(store: ImageStore, tmp_path: Path) -> None:
    """The same image from both sides is one; asked for by hand, the registry has the last word."""
    with open_registry() as registry:
        top = registry.push("app", "1", [LOWER])
        archive = docker_archive(tmp_path / "a.tar", [LOWER], f"{registry.domain}/app:1")
        [loaded] = store.load(archive)
        assert not loaded.pulled
        image = await fetch(store, registry, "app:1")
        assert (image.id, image.digest, image.pulled) == (loaded.id, top, True)
        assert len(store.images()) == 1


def test_where_registries_are() -> None:
    assert base_url("docker.io") == ("https://registry-1.docker.io", False)
    assert base_url("quay.io") == ("https://quay.io", False)
    assert base_url("localhost:5000") == ("https://localhost:5000", True)
    assert base_url("[::1]:5000") == ("https://[::1]:5000", True)
    assert base_url("10.0.0.1:5000") == ("https://10.0.0.1:5000", False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('Basic realm="a, b=c"', [Challenge("basic", {"realm": "a, b=c"})]),
        (
            'Bearer realm="https://x/t",service="s",scope="repository:a/b:pull", basic REALM=r',
            [
                Challenge(
                    "bearer",
                    {"realm": "https://x/t", "service": "s", "scope": "repository:a/b:pull"},
                ),
                Challenge("basic", {"realm": "r"}),
            ],
        ),
        (r'Basic realm="a \"quoted\" word"', [Challenge("basic", {"realm": 'a "quoted" word'})]),
        ("=oops", []),
    ],
)
def test_challenges(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges(header) == expected


def auth(user: str, password: str = "p") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def users(keyring: Keyring, image: str) -> list[str]:
    repository = parse_reference(image).repository
    return [credential.username for credential in keyring.lookup(repository)]


def test_credentials_by_registry() -> None:
    keyring = Keyring()
    auths = {
        "https://index.docker.io/v1/": auth("hub"),
        "quay.io": auth("quay"),
        "quay.io/team": auth("team"),
        "*.example.com": auth("star"),
        "http://localhost:5000/v2/": auth("local"),
        "empty.example.com": {},
    }
    keyring.add(read_config(json.dumps({"auths": auths, "credsStore": "x"}).encode()))
    assert users(keyring, "nginx") == ["hub"]
    assert users(keyring, "quay.io/team/app") == ["team", "quay"]
    assert users(keyring, "quay.io/other/app") == ["quay"]
    assert users(keyring, "a.example.com/app") == ["star"]
    assert users(keyring, "a.b.example.com/app") == []
    assert users(keyring, "localhost:5000/app") == ["local"]
    assert users(keyring, "localhost:5001/app") == []


def test_pull_secrets() -> None:
    def secret(kind: str, key: str, content: Any) -> dict[str, Any]:
        data = base64.b64encode(json.dumps(content).encode()).decode()
        return {"type": f"kubernetes.io/{kind}", "data": {key: data}}

    new = secret("dockerconfigjson", ".dockerconfigjson", {"auths": {"a.io": auth("ann")}})
    old = secret("dockercfg", ".dockercfg", {"a.io": {"username": "bob", "password": "p"}})
    assert read_secret(new) == {"a.io": Credential("ann", "p")}
    assert read_secret(old) == {"a.io": Credential("bob", "p")}
    assert read_secret({"type": "Opaque", "data": {".dockercfg": "e30="}}) == {}
    assert "'p'" not in repr(read_secret(new)), "passwords are not shown"
    for content in ([], {"auths": []}, {"auths": {"a.io": 1}}, {"auths": {"a.io": {"auth": "x"}}}):
        with pytest.raises(BadCredentials):
            read_secret(secret("dockerconfigjson", ".dockerconfigjson", content))
    with pytest.raises(BadCredentials, match="base64"):
        read_secret({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "%"}})


def test_bars_and_lines() -> None:
    """On a terminal a line a layer, redrawn; elsewhere one when it is there."""
    out = io.StringIO()
    one, two = Progress("sha256:" + 64 * "a", 5, 10), Progress("sha256:" + 64 * "b", 7, 0)
    with Bars(out) as bars:
        bars.show(one)
        bars.show(one._replace(done=10))
        bars.show(two)
    assert out.getvalue() == "aaaaaaaaaaaa: 0.0 MB\n"
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    with Bars(out) as bars:
        bars.show(one)
        bars.show(two)
    assert out.getvalue().splitlines() == [
        "\x1b[2Kaaaaaaaaaaaa: [===============               ] 0.0 MB of 0.0 MB",
        "\x1b[1A\x1b[2Kaaaaaaaaaaaa: [===============               ] 0.0 MB of 0.0 MB",
        "\x1b[2Kbbbbbbbbbbbb: 0.0 MB",
    ]


def test_the_users_own_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert credentials_for("quay.io/app", "", "") == []
    assert credentials_for("quay.io/app", "bob", "p") == [Credential("bob", "p")]
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"quay.io": auth("ann")}}))
    assert credentials_for("quay.io/app", "", "") == [Credential("ann", "p")]
    config.write_text("{")
    with pytest.raises(CommandFailed, match=r"config.json cannot be used: not JSON"):
        credentials_for("quay.io/app", "", "")
