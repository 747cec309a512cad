"""Bodies to objects: JSON, YAML, protobuf; the schema's data against its sources."""

from __future__ import annotations

import base64
import gzip
import struct
from typing import Any

import orjson
import pytest

from k8slite.api import codec, kinds, protobuf, schema
from k8slite.api.generate import schema as generator
from k8slite.api.kinds import CONFIG_MAPS, DEPLOYMENTS, PODS, read_data
from k8slite.api.meta import Obj, parse_time
from k8slite.api.schema import Field, Type
from k8slite.api.status import ApiError


def refusal(body: bytes, kind: kinds.Kind = PODS, validation: str = codec.WARN) -> str:
    with pytest.raises(ApiError) as caught:
        codec.decode(body, codec.JSON, kind, validation)
    assert caught.value.code == 400
    return caught.value.message


def test_the_schema_is_what_its_sources_say() -> None:
    shipped = orjson.loads(gzip.decompress(read_data("schema.json.gz")))
    assert shipped == generator.generate()
    assert len(read_data("schema.json.gz")) < 60_000


def test_every_persisted_kind_has_a_type() -> None:
    assert [k.resource for k in kinds.KINDS if schema.type_of(k) is None] == []


def test_what_go_omits_vanishes() -> None:
    body = {
        "metadata": {"name": "x", "labels": {}, "creationTimestamp": None},
        "spec": {"hostNetwork": False, "containers": [{"name": "c", "stdin": False, "env": []}]},
    }
    obj = codec.decode(orjson.dumps(body), "", PODS).obj
    assert obj == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "c"}]},
    }


def test_zeros_behind_pointers_stay() -> None:
    body = {"spec": {"replicas": 0, "template": {"spec": {"automountServiceAccountToken": False}}}}
    spec = codec.decode(orjson.dumps(body), "", DEPLOYMENTS).obj["spec"]
    assert spec == body["spec"]


def test_unknown_fields_are_pruned_and_reported() -> None:
    body = orjson.dumps({"metadata": {}, "spec": {"containers": [{"name": "c", "imagee": "x"}]}})
    decoded = codec.decode(body, "", PODS)
    assert decoded.warnings == ['unknown field "spec.containers[0].imagee"']
    assert decoded.obj["spec"]["containers"] == [{"name": "c"}]
    assert codec.decode(body, "", PODS, codec.IGNORE).warnings == []
    strict = 'strict decoding error: unknown field "spec.containers[0].imagee"'
    assert refusal(body, PODS, codec.STRICT).endswith(strict)


def test_keys_written_twice_are_reported() -> None:
    body = b'{"metadata":{"name":"g"},"data":{"a":"1","a":"2","b":"\\":"}}'
    decoded = codec.decode(body, "", CONFIG_MAPS)
    assert decoded.warnings == ['duplicate field "data.a"']
    assert decoded.obj["data"]["a"] == "2"
    assert codec.decode(b'{ "data" : { "a": "1" } }', "", CONFIG_MAPS).warnings == []


def test_the_words_of_refusals() -> None:
    assert refusal(b"{").endswith("json parse error: unexpected end of JSON input ({)")
    assert refusal(b"[]").endswith("(5b5d)")
    wrong = b'{"apiVersion":"v1","kind":"Service"}'
    assert refusal(wrong).endswith("converting (v1.Service) to (core.Pod): unknown conversion")
    other = b'{"apiVersion":"v1","kind":"Banana"}'
    assert 'no kind "Banana" is registered for version "v1"' in refusal(other)


def test_yaml() -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  d: 2026-01-01\n"
    message = "json: cannot unmarshal"
    decoded = codec.decode(text, "application/yaml", CONFIG_MAPS)
    assert decoded.obj["data"] == {"d": "2026-01-01"}
    with pytest.raises(ApiError, match=message):
        codec.decode(b"data: {a: 1}", "application/yaml", CONFIG_MAPS)
    twice = codec.decode(b"data: {a: b}\ndata: {c: d}\n", "application/yaml", CONFIG_MAPS)
    assert twice.warnings == ['line 2: key "data" already set in map']


def test_a_media_type_nobody_reads_is_415() -> None:
    with pytest.raises(ApiError) as caught:
        codec.decode(b"", "text/plain", PODS)
    assert caught.value.code == 415


# --- a dumb writer of protobuf, the reader's twin -------------------------------------------------


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _message(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _scalar(field: Field, number: int, value: Any) -> bytes:
    match field.code:
        case "i" | "l" | "b":
            return _varint(number << 3) + _varint(int(value))
        case "s":
            return _message(number, value.encode())
        case "B":
            return _message(number, base64.b64decode(value))
        case "n":
            return _varint(number << 3 | 1) + struct.pack("<d", value)
        case "t" | "u":
            seconds = parse_time(value)
            nanos = round(seconds % 1 * 1e6) * 1000
            data = _varint(8) + _varint(int(seconds)) + _varint(16) + _varint(nanos)
            return _message(number, data)
        case "q":
            return _message(number, _message(1, value.encode()))
        case "x" if isinstance(value, str):
            return _message(number, _varint(8) + _varint(1) + _message(3, value.encode()))
        case "x":
            return _message(number, _varint(16) + _varint(value))
        case "@":
            return _message(number, write(field.type, value))
    return _message(number, _message(1, orjson.dumps(value)))


def _field(field: Field, value: Any) -> bytes:
    last = field.numbers[-1]
    if field.shape == "[":
        data = b"".join(_scalar(field, last, v) for v in value)
    elif field.shape == "{":
        entries = (_message(1, k.encode()) + _scalar(field, 2, v) for k, v in value.items())
        data = b"".join(_message(last, e) for e in entries)
    else:
        data = _scalar(field, last, value)
    for number in reversed(field.numbers[:-1]):
        data = _message(number, data)
    return data


def write(type_: Type, o: Obj) -> bytes:
    return b"".join(
        _field(type_.fields[k], v) for k, v in o.items() if k not in ("apiVersion", "kind")
    )


DEPLOYMENT: Obj = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "d",
        "labels": {"a": "b", "c": "d"},
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "generation": 7,
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
    },
    "spec": {
        "replicas": 0,
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "spec": {
                "volumes": [
                    {"name": "v", "configMap": {"name": "c", "optional": False}},
                    {"name": "w", "emptyDir": {"sizeLimit": "1Gi"}},
                ],
                "containers": [
                    {
                        "name": "c",
                        "args": ["x", "y"],
                        "resources": {"limits": {"cpu": "500m"}},
                        "livenessProbe": {
                            "httpGet": {"port": "http", "path": "/"},
                            "periodSeconds": 3,
                        },
                        "securityContext": {"runAsUser": 0},
                    }
                ],
            }
        },
    },
}


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    type_meta = _message(1, api_version.encode()) + _message(2, kind.encode())
    return protobuf.MAGIC + _message(1, type_meta) + _message(2, raw)


def test_protobuf_reads_what_was_written() -> None:
    type_ = schema.type_of(DEPLOYMENTS)
    assert type_ is not None
    body = envelope("apps/v1", "Deployment", write(type_, DEPLOYMENT))
    obj = codec.decode(body, codec.PROTOBUF, DEPLOYMENTS).obj
    assert obj == DEPLOYMENT


def test_protobuf_of_other_bodies() -> None:
    type_ = schema.type_of_gvk("", "v1", "DeleteOptions")
    assert type_ is not None
    options: Obj = {
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
    }
    body = envelope("v1", "DeleteOptions", write(type_, options))
    assert codec.decode(body, codec.PROTOBUF, codec.DELETE_OPTIONS).obj == {
        **options,
        "apiVersion": "v1",
        "kind": "DeleteOptions",
    }


@pytest.mark.parametrize("cut", range(4, 60, 7))
def test_a_torn_protobuf_body_is_refused(cut: int) -> None:
    type_ = schema.type_of(DEPLOYMENTS)
    assert type_ is not None
    body = envelope("apps/v1", "Deployment", write(type_, DEPLOYMENT))
    with pytest.raises(ApiError) as caught:
        codec.decode(body[:-cut], codec.PROTOBUF, DEPLOYMENTS)
    assert caught.value.code == 400
