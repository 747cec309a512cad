"""Input made to do harm: bombs, depths, giants, nonsense. All of it is answered, by a server that
goes on; what once ended or held up the process is in the lists."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from k8slite.api import quantity, yaml_codec
from k8slite.api.cel import CompileError, EvaluationError, compile_expression
from k8slite.api.kinds import PODS
from k8slite.api.patch import json_patch, merge_patch, strategic_merge_patch
from k8slite.api.selectors import fields_or_400, labels_or_400
from k8slite.api.status import ApiError
from k8slite.apiserver.auth.jose import InvalidToken, read_token
from k8slite.apiserver.http.message import Peer, Request
from k8slite.apiserver.http.parser import BadRequest, RequestParser
from k8slite.apiserver.options import decode_continue
from k8slite.apiserver.requestinfo import request_info
from k8slite.apiserver.store.encryption import Undecipherable, read_encryption
from tests.apiserver.support import Session

PATIENCE_SECONDS = 60
NAMESPACE = "/api/v1/namespaces/default"
MAPS, PATCHED = f"{NAMESPACE}/configmaps", f"{NAMESPACE}/configmaps/m"
YAML, JSON_PATCH = "application/yaml", "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


def yaml_bomb() -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    return "\n".join(lines)


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def pod(cpu: str) -> dict[str, Any]:
    resources = {"limits": {"cpu": cpu, "memory": "1e99999999999999999999"}}
    container = {"name": "c", "image": "i", "resources": resources}
    return {"metadata": {"name": "p"}, "spec": {"containers": [container]}}


def token(**parts: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"v": "meta.k8s.io/v1", **parts})).decode()


BODIES = {
    "yaml bomb": (MAPS, yaml_bomb(), YAML),
    "yaml bomb, applied": (f"{PATCHED}?fieldManager=f", yaml_bomb(), APPLY),
    "yaml that contains itself": (MAPS, "a: &a [*a]", YAML),
    "yaml that merges itself": (MAPS, "a: &a {<<: *a}", YAML),
    "deep yaml": (MAPS, "[" * 100_000, YAML),
    "deep yaml on one line": (MAPS, "- " * 100_000, YAML),
    "much yaml": (MAPS, "a: [" + "1," * 200_000 + "]", YAML),
    "a giant in yaml": (MAPS, "a: 0x" + "f" * 100_000, YAML),
    "sixties in yaml": (MAPS, "a: 1" + ":1" * 100_000, YAML),
    "deep json": (MAPS, nested(300), "application/json"),
    "deeper json": (MAPS, nested(100_000), "application/json"),
    "a deep patch": (PATCHED, nested(300), "application/merge-patch+json"),
    "a deep patch of lists": (PATCHED, nested(900), "application/strategic-merge-patch+json"),
    "a giant cpu": (f"{NAMESPACE}/pods", orjson.dumps(pod("1" + "0" * 5_000)), "application/json"),
    "a number of no size": (f"{NAMESPACE}/pods", '{"spec":{"a":1e400}}', "application/json"),
    "half a character": (MAPS, '{"metadata":{"name":"a\\ud800"}}', "application/json"),
    "protobuf that ends early": (
        f"{NAMESPACE}/pods", b"k8s\0\x12\xff\xff\xff\xff\x0fxxxx",
        "application/vnd.kubernetes.protobuf",
    ),
    "copies of copies": (
        PATCHED,
        orjson.dumps(
            [{"op": "add", "path": "/data/c", "value": {"x": "y" * 1000}}]
            + [{"op": "copy", "from": "/data", "path": f"/data/n{i}"} for i in range(60)]
        ),
        JSON_PATCH,
    ),
}  # fmt: skip
QUERIES = {
    "a resource version of digits": f"resourceVersion={'9' * 20_000}",
    "a limit of digits": f"limit={'9' * 30}",
    "a continue token of nonsense": f"limit=1&continue={'A' * 20_000}",
    "a continue token from before all": f"limit=1&continue={token(rv=-5, start='default/x')}",
    "a continue token of a giant": f"limit=1&continue={token(rv=1 << 63, start='default/x')}",
    "a selector of parentheses": f"labelSelector={quote('(' * 20_000)}",
    "half a character": "labelSelector=a%ed%a0%80",
}


@pytest.mark.parametrize("name", BODIES)
async def test_bodies_that_do_harm_are_refused(session: Session, name: str) -> None:
    path, body, content_type = BODIES[name]
    await session.call("POST", MAPS, {"metadata": {"name": "m"}, "data": {}})
    method = "PATCH" if "patch" in content_type else "POST"
    with trio.fail_after(PATIENCE_SECONDS):
        status, answer = await session.call(method, path, body, content_type=content_type)
        assert 400 <= status < 500, answer
        assert (await session.call("GET", "/readyz"))[0] == 200


@pytest.mark.parametrize("name", QUERIES)
async def test_queries_that_do_harm_are_refused(session: Session, name: str) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        status, answer = await session.call("GET", f"{MAPS}?{QUERIES[name]}")
        assert 400 <= status < 500, answer


# --- what reads, by itself ------------------------------------------------------------------------

TEXT = st.text(max_size=60)
SEEDS = (
    "a in (b,c),!d,e!=f",
    "metadata.name=x,spec.y!=z",
    '{"a": [1, &x {b: *x}]}',
    "1.5Gi",
    "1e9",
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Something good, with a piece of it replaced."""
    good = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, len(good)))
    return good[:start] + draw(TEXT) + good[end:]


@given(damaged() | TEXT)
def test_texts(text: str) -> None:
    for read, refusals in (
        (labels_or_400, ApiError),
        (lambda t: fields_or_400(PODS, t), ApiError),
        (decode_continue, ApiError),
        (quantity.canonical, ValueError),
        (quantity.milli_value, ValueError),
        (yaml_codec.load, ValueError),
        (read_token, InvalidToken),
        (read_encryption, ValueError),
    ):
        try:
            read(text)
        except refusals:
            continue


@given(st.text(alphabet="0123456789.eE+-KMGTPimnuk", max_size=40))
def test_quantities_are_bounded(text: str) -> None:
    try:
        assert abs(quantity.value(text)) <= 2**63
        assert quantity.canonical(quantity.canonical(text)) == quantity.canonical(text)
    except quantity.QuantityError:
        return


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["", "a", "0", "$patch", "$retainKeys", "metadata", "spec", "name"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
POINTERS = st.sampled_from(["", "/", "/a", "/a/0", "/a/-", "/spec", "/spec/a", "/a~1b", "a", "/-1"])
OPERATION = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "fly"])},
    optional={"path": POINTERS, "from": POINTERS, "value": VALUES},
)


@given(VALUES, st.lists(OPERATION, max_size=6) | VALUES)
def test_patches(obj: Any, patch: Any) -> None:
    old = {"metadata": {"name": "x"}, "spec": obj}
    for apply in (
        lambda: json_patch(old, patch),
        lambda: merge_patch(old, patch),
        lambda: strategic_merge_patch(PODS, old, patch),
    ):
        try:
            apply()
        except ApiError:
            continue


@settings(max_examples=60)
@given(st.text(alphabet="self.ab()[]{}'\"!&|?:<>=+-*/%0123456789, ", max_size=30))
def test_expressions(source: str) -> None:
    try:
        compile_expression(source, ("self",)).evaluate({"self": {"a": [1, "b"]}})
    except (CompileError, EvaluationError):
        return


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=60))
def test_frames_of_http(pieces: list[bytes], tail: bytes) -> None:
    parser = RequestParser(Peer(None, None), 1000)
    try:
        parser.feed(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\n")
        for piece in (*pieces, b"\r\n\r\n", tail):
            parser.feed(piece)
    except BadRequest:
        return


@given(st.sampled_from(["GET", "POST", "PUT", "X"]), st.text(max_size=40), TEXT)
def test_paths(method: str, path: str, query: str) -> None:
    for start in ("", "/api/v1/", "/apis/apps/v1/namespaces/"):
        request_info(Request(method, start + path, query, {}, b"", Peer(None, None)))


@given(st.binary(max_size=80))
def test_stored_values(stored: bytes) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    config = {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [
                    {"aesgcm": {"keys": [{"name": "a", "secret": key}]}},
                    {"aescbc": {"keys": [{"name": "a", "secret": key}]}},
                ],
            }
        ],
    }
    chosen = read_encryption(orjson.dumps(config).decode()).of("", "secrets")
    for prefix in (b"", b"k8s:enc:", b"k8s:enc:aesgcm:v1:a:", b"k8s:enc:aescbc:v1:a:"):
        try:
            chosen.open(prefix + stored, b"/registry/secrets/x")
        except Undecipherable:
            continue
