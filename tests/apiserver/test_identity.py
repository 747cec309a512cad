"""Who one is by each way in: bootstrap tokens, Secrets, a proxy's word, issuers, webhooks."""

from __future__ import annotations

import base64
import ssl
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from k8slite.apiserver import Apiserver, open_apiserver
from k8slite.apiserver.auth.configuration import read_authentication, read_authorization
from k8slite.apiserver.auth.jwt import Signer
from raftkv.os_host import OsHost
from tests.apiserver.outside import open_outside
from tests.apiserver.support import (
    Answer,
    Session,
    encode_request,
    make_config,
    open_session,
    open_test_apiserver,
)
from tests.certificates import Authority

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
PODS = "/api/v1/namespaces/default/pods"


async def who(session: Session, token: str) -> Any:
    """The user behind a token, or the status code of the refusal."""
    status, answer = await session.call("POST", WHO, {}, token=token)
    return answer["status"]["userInfo"] if status == 201 else status


def encoded(**texts: str) -> dict[str, str]:
    return {
        key.replace("_", "-"): base64.b64encode(text.encode()).decode()
        for key, text in texts.items()
    }


async def test_acting_as_another(session: Session) -> None:
    extra = {"Impersonate-User": "eve", "Impersonate-Uid": "5", "Impersonate-Extra-Scopes": "view"}
    request = encode_request("POST", WHO, {}, "application/json", "", "admin-token")
    head = "".join(f"{key}: {value}\r\n" for key, value in extra.items()).encode()
    first, rest = request.split(b"\r\n", 1)
    for token, code in ((b"admin-token", 201), (b"alice-token", 403)):
        sent = first + b"\r\n" + head + rest.replace(b"admin-token", token)
        await session.stream.send_all(sent)
        answer = Answer()
        while not answer.done:
            answer.feed(bytes(await session.stream.receive_some(65536)))
        assert answer.status == code
        if code == 201:
            assert orjson.loads(answer.body)["status"]["userInfo"] == {
                "username": "eve",
                "uid": "5",
                "groups": ["system:authenticated"],
                "extra": {"scopes": ["view"]},
            }


async def test_bootstrap_tokens(session: Session) -> None:
    good = encoded(
        token_id="abcdef", token_secret="0123456789abcdef",
        usage_bootstrap_authentication="true", auth_extra_groups="system:bootstrappers:workers",
    )  # fmt: skip
    path, name = "/api/v1/namespaces/kube-system/secrets", "bootstrap-token-abcdef"
    for changes, expected in (
        ({}, "system:bootstrap:abcdef"),
        (encoded(token_secret="0123456789abcdeX"), 401),
        (encoded(usage_bootstrap_authentication="false"), 401),
        (encoded(expiration="2020-01-01T00:00:00Z"), 401),
        (encoded(expiration="2099-01-01T00:00:00Z"), "system:bootstrap:abcdef"),
        (encoded(auth_extra_groups="system:masters"), 401),
    ):
        body = {
            "metadata": {"name": name},
            "type": "bootstrap.kubernetes.io/token",
            "data": {**good, **changes},
        }
        status, answer = await session.call("POST", path, body)
        assert status == 201, answer
        found = await who(session, "abcdef.0123456789abcdef")
        assert (found if isinstance(found, int) else found["username"]) == expected
        if not changes:
            assert found["groups"] == [
                "system:bootstrappers", "system:bootstrappers:workers", "system:authenticated",
            ]  # fmt: skip
        await session.call("DELETE", f"{path}/{name}")
    assert await who(session, "abcdef.0123456789abcdef") == 401


async def test_secrets_hold_tokens_of_accounts(session: Session) -> None:
    path = "/api/v1/namespaces/default/secrets"
    secret = {
        "metadata": {
            "name": "s", "annotations": {"kubernetes.io/service-account.name": "default"},
        },
        "type": "kubernetes.io/service-account-token",
    }  # fmt: skip
    status, answer = await session.call("POST", path, secret)
    assert status == 201, answer
    with trio.fail_after(10):
        while not (answer.get("data") or {}).get("token"):
            await trio.sleep(0.01)
            _, answer = await session.call("GET", f"{path}/s")
    token = base64.b64decode(answer["data"]["token"]).decode()
    assert base64.b64decode(answer["data"]["namespace"]) == b"default"
    assert (await who(session, token))["username"] == "system:serviceaccount:default:default"
    await session.call("DELETE", "/api/v1/namespaces/default/serviceaccounts/default")
    assert await who(session, token) == 401
    with trio.fail_after(10):
        while (await session.call("GET", f"{path}/s"))[0] != 404:
            await trio.sleep(0.01)


async def test_nobody_may_ask_for_these_paths_alone(tmp_path: Path) -> None:
    file = tmp_path / "authentication.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "AuthenticationConfiguration",
                "anonymous": {"enabled": True, "conditions": [{"path": "/livez"}]},
            }
        )
    )
    async with (
        open_test_apiserver(authentication_config=str(file)) as server,
        open_session(server, "") as session,
    ):
        assert (await session.call("GET", "/livez"))[0] == 200
        assert (await session.call("GET", "/version"))[0] == 401


async def test_a_trusted_proxy_tells_who_asks(tmp_path: Path) -> None:
    users, proxies = Authority(tmp_path / "users"), Authority(tmp_path / "proxies", "proxies")
    tls = users.tls("apiserver", require_client=False)
    tls.server.load_verify_locations(proxies.path)
    config = make_config(tls=tls.server, proxy_client_ca=proxies.path.read_bytes())
    said = {
        "X-Remote-User": "zoe", "X-Remote-Group": "devs", "X-Remote-Extra-example.org%2fkey": "v",
    }  # fmt: skip
    async with open_apiserver(config, OsHost("test")) as server:
        for authority, name, headers, expected in (
            (proxies, "front-proxy-client", said, "zoe"),
            (proxies, "somebody-else", said, "system:anonymous"),
            (proxies, "front-proxy-client", {}, "system:anonymous"),
            (users, "front-proxy-client", said, "front-proxy-client"),
        ):
            _, certificate, key = authority.files(name)
            context = ssl.create_default_context(cafile=str(users.path))
            context.load_cert_chain(certificate, key)
            status, answer = await ask_over_tls(server, context, headers)
            if expected == "system:anonymous":
                assert status == 403
                assert f'User "{expected}"' in answer["message"]
            else:
                assert answer["status"]["userInfo"]["username"] == expected
            if expected == "zoe":
                assert answer["status"]["userInfo"] == {
                    "username": "zoe",
                    "groups": ["devs", "system:authenticated"],
                    "extra": {"example.org/key": ["v"]},
                }


async def ask_over_tls(
    server: Apiserver, context: ssl.SSLContext, headers: dict[str, str]
) -> tuple[int, Any]:
    stream = await trio.open_ssl_over_tcp_stream(
        server.address.host, server.address.port, ssl_context=context, https_compatible=True
    )
    async with stream:
        request = encode_request("POST", WHO, {}, "application/json", "application/json", "")
        extra = "".join(f"{key}: {value}\r\n" for key, value in headers.items()).encode()
        first, rest = request.split(b"\r\n", 1)
        await stream.send_all(first + b"\r\n" + extra + rest)
        answer = Answer()
        while not answer.done:
            answer.feed(bytes(await stream.receive_some(65536)))
        return answer.status, orjson.loads(answer.body)


def signer() -> Signer:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Signer(pem)


def key_set(by: Signer) -> Any:
    from k8slite.apiserver.auth.jwt import Verifier

    return Verifier((by.public_key(),)).key_set()


async def test_tokens_of_another_issuer(tmp_path: Path) -> None:
    ours, stranger = signer(), signer()
    async with open_outside(tmp_path) as outside:
        outside.answers["/.well-known/openid-configuration"] = lambda _: {
            "issuer": outside.url, "jwks_uri": f"{outside.url}/keys",
        }  # fmt: skip
        outside.answers["/keys"] = lambda _: key_set(ours)
        jwt = {
            "issuer": {
                "url": outside.url, "audiences": ["us"], "certificateAuthority": outside.ca,
            },
            "claimMappings": {
                "username": {"expression": "'oidc:' + claims.email"},
                "groups": {"claim": "roles", "prefix": "oidc:"},
                "uid": {"claim": "sub"},
                "extra": [{"key": "example.org/team", "valueExpression": "claims.team"}],
            },
            "claimValidationRules": [
                {"claim": "hd", "requiredValue": "example.org"},
                {"expression": "claims.exp - claims.iat <= 3600", "message": "too long a life"},
            ],
            "userValidationRules": [
                {"expression": "!user.username.startsWith('system:')", "message": "reserved"},
            ],
        }  # fmt: skip
        file = tmp_path / "authentication.yaml"
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "apiserver.config.k8s.io/v1",
                    "kind": "AuthenticationConfiguration",
                    "jwt": [jwt],
                }
            )
        )
        now = int(time.time())
        claims = {
            "iss": outside.url, "aud": "us", "exp": now + 600, "iat": now, "sub": "7",
            "email": "ann@example.org", "roles": ["a", "b"], "team": "blue", "hd": "example.org",
        }  # fmt: skip
        async with (
            open_test_apiserver(authentication_config=str(file)) as server,
            open_session(server) as session,
        ):
            assert await who(session, ours.sign(claims)) == {
                "username": "oidc:ann@example.org",
                "uid": "7",
                "groups": ["oidc:a", "oidc:b", "system:authenticated"],
                "extra": {"example.org/team": ["blue"]},
            }
            for changes in (
                {"aud": ["them"]}, {"exp": now - 1}, {"hd": "else.org"}, {"iss": "https://else"},
                {"exp": now + 7200}, {"email": None}, {"team": 3}, {"nbf": now + 60},
            ):  # fmt: skip
                assert await who(session, ours.sign({**claims, **changes})) == 401, changes
            assert await who(session, stranger.sign(claims)) == 401
            assert len(outside.asked) == 2  # a stranger's key has nothing fetched again so soon


async def test_a_webhook_knows_tokens(tmp_path: Path) -> None:
    def review(asked: Any) -> Any:
        good = asked["spec"]["token"] == "secret"
        user = {"username": "joe", "groups": ["g"], "extra": {"k": ["v"]}}
        return {**asked, "status": {"authenticated": good, "user": user if good else {}}}

    async with open_outside(tmp_path) as outside:
        outside.answers["/tokens"] = review
        async with (
            open_test_apiserver(token_webhook=outside.kubeconfig("/tokens")) as server,
            open_session(server) as session,
        ):
            for _ in range(2):
                found = await who(session, "secret")
                assert found["groups"] == ["g", "system:authenticated"]
            assert len(outside.asked) == 1
            assert outside.asked[0]["kind"] == "TokenReview"
            assert await who(session, "other") == 401
            del outside.answers["/tokens"]
            assert await who(session, "third") == 401


AUTHORIZATION: dict[str, Any] = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AuthorizationConfiguration",
    "authorizers": [
        {
            "type": "Webhook", "name": "outside",
            "webhook": {
                "timeout": "5s", "failurePolicy": "Deny",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": ""},
                "matchConditions": [{"expression": "has(request.resourceAttributes)"}],
            },
        },
        {"type": "Node", "name": "node"},
        {"type": "RBAC", "name": "rbac"},
    ],
}  # fmt: skip


async def test_a_webhook_knows_rights(tmp_path: Path) -> None:
    def review(asked: Any) -> Any:
        attributes = asked["spec"]["resourceAttributes"]
        allowed = attributes["resource"] == "pods" and attributes["verb"] == "list"
        denied = attributes["resource"] == "secrets"
        status = {"allowed": allowed, "denied": denied, "reason": "" if allowed else "by mood"}
        return {**asked, "status": status}

    async with open_outside(tmp_path) as outside:
        outside.answers["/rights"] = review
        hook = AUTHORIZATION["authorizers"][0]["webhook"]
        hook["connectionInfo"]["kubeConfigFile"] = outside.kubeconfig("/rights")
        file = tmp_path / "authorization.yaml"
        file.write_text(yaml.safe_dump(AUTHORIZATION))
        async with (
            open_test_apiserver(authorization_config=str(file)) as server,
            open_session(server, "alice-token") as alice,
        ):
            assert (await alice.call("GET", PODS))[0] == 200
            status, answer = await alice.call("POST", PODS, {})
            assert status == 403
            assert answer["message"].endswith('in the namespace "default": by mood')
            asked = outside.asked[0]["spec"]
            assert asked["user"] == "alice"
            assert asked["resourceAttributes"] == {
                "namespace": "default", "verb": "list", "version": "*", "resource": "pods",
            }  # fmt: skip
            before = len(outside.asked)
            assert (await alice.call("GET", PODS))[0] == 200  # as it said a moment ago
            assert (await alice.call("GET", "/version"))[0] == 200  # none of its business
            assert len(outside.asked) == before
            review_of = {"spec": {"user": "alice", "resourceAttributes": {
                "verb": "get", "resource": "secrets", "namespace": "default"}}}  # fmt: skip
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            _, answer = await alice.call("POST", path, review_of, token="admin-token")
            assert answer["status"] == {"allowed": False, "denied": True, "reason": "by mood"}
            del outside.answers["/rights"]
            nodes = "/api/v1/nodes"
            assert (await alice.call("GET", nodes))[0] == 403
            assert (await alice.call("GET", nodes, token="admin-token"))[0] == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Pod", "must be apiserver.config.k8s.io/v1, Kind=AuthenticationConfiguration"),
        ("[]", "not a AuthenticationConfiguration"),
        ("jwt: [{issuer: {url: 'http://x', audiences: [a]}}]", "jwt[0].issuer.url: Invalid value"),
        ("jwt: [{issuer: {url: 'https://x'}}]", "jwt[0].issuer.audiences: Required value"),
        ("jwt: [{issuer: {url: 'https://x', audiences: [a]}}]", "claimMappings.username"),
        (
            "jwt: [{issuer: {url: 'https://x', audiences: [a]}, "
            "claimMappings: {username: {expression: 'claims.'}}}]",
            "jwt[0].claimMappings.username.expression: Invalid value",
        ),
        ("anonymous: {enabled: false, conditions: [{path: /a}]}", "anonymous.conditions"),
    ],
)
def test_what_is_wrong_with_an_authentication_configuration(text: str, words: str) -> None:
    head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n"
    with pytest.raises(ValueError) as refused:
        read_authentication(text if text in ("[]", "kind: Pod") else head + text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "at least one"),
        ("authorizers: [{type: Magic}]", "authorizers[0].type: Unsupported value"),
        ("authorizers: [{type: Webhook}]", "connectionInfo"),
    ],
)
def test_what_is_wrong_with_an_authorization_configuration(text: str, words: str) -> None:
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration"}
    with pytest.raises(ValueError) as refused:
        read_authorization(yaml.safe_dump({**head, **yaml.safe_load(text)}))
    assert words in str(refused.value)
