"""OpenAPI v2: all it refers to is there, in words that v2 knows; as protobuf it says the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

from k8slite.api import openapi
from k8slite.api.kinds import KINDS
from k8slite.api.openapi_v2 import swagger
from k8slite.api.openapi_v2_protobuf import encode


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)


def test_the_document_is_whole() -> None:
    versions = dict.fromkeys((kind.group, kind.version) for kind in KINDS)
    document = swagger(orjson.loads(openapi.built_in_document(*each)) for each in versions)
    definitions = document["definitions"]
    for each in walk(document):
        reference = each.get("$ref")
        if isinstance(reference, str):
            assert reference.removeprefix("#/definitions/") in definitions
        assert not isinstance(each.get("oneOf"), list)  # a property may be called so
    assert definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] == {"type": "string"}
    post = document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"]
    body = next(each for each in post["parameters"] if each["in"] == "body")
    assert body["schema"] == {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"}
    assert post["responses"]["200"]["schema"] == body["schema"]


def fields(message: bytes) -> dict[int, list[Any]]:
    """A message's fields by number, as the protobuf library reads them without a schema."""
    empty = Empty()
    empty.ParseFromString(message)
    found: dict[int, list[Any]] = {}
    for field in UnknownFieldSet(empty):
        found.setdefault(field.field_number, []).append(field.data)
    return found


def named(messages: list[bytes]) -> dict[str, bytes]:
    pairs = [fields(each) for each in messages]
    return {pair[1][0].decode(): pair[2][0] for pair in pairs}


def test_as_protobuf_it_says_the_same() -> None:
    document = swagger([orjson.loads(openapi.built_in_document("apps", "v1"))])
    found = fields(encode(document))
    assert found[1] == [b"2.0"]
    definitions = named(fields(found[9][0])[1])
    assert definitions.keys() == document["definitions"].keys()
    paths = named(fields(found[8][0])[2])
    assert paths.keys() == document["paths"].keys()

    name = "io.k8s.api.apps.v1.DeploymentSpec"
    spec, wanted = fields(definitions[name]), document["definitions"][name]
    assert fields(spec[22][0])[1] == [b"object"]
    assert [each.decode() for each in spec[19]] == wanted["required"]
    properties = named(fields(spec[25][0])[1])
    assert properties.keys() == wanted["properties"].keys()
    assert fields(properties["template"])[1] == [wanted["properties"]["template"]["$ref"].encode()]

    kind = fields(definitions["io.k8s.api.apps.v1.Deployment"])
    said = {k: orjson.loads(fields(v)[2][0]) for k, v in named(kind[31]).items()}
    tag = {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert said == {"x-kubernetes-group-version-kind": [tag]}

    path = fields(paths["/apis/apps/v1/namespaces/{namespace}/deployments"])
    post = fields(path[4][0])
    parameters = [fields(fields(each)[1][0]) for each in post[8]]
    bodies = [fields(each[1][0]) for each in parameters if 1 in each]
    assert [each[2] for each in bodies] == [[b"body"]]
    queries = [fields(fields(each[2][0])[3][0])[4][0] for each in parameters if 2 in each]
    assert b"fieldValidation" in queries


@pytest.mark.parametrize(
    ("schema", "number", "value"),
    [
        ({"additionalProperties": True}, 21, {2: [1]}),
        ({"additionalProperties": {"type": "string"}}, 21, {1: [b"\xb2\x01\x08\n\x06string"]}),
        ({"enum": ["a", 1]}, 20, {2: [b'"a"']}),
        ({"default": {"a": None}}, 5, {2: [b'{"a":null}']}),
        ({"minimum": 1.5}, 9, 4609434218613702656),
        ({"maxLength": -1}, 11, (1 << 64) - 1),
    ],
)
def test_what_custom_resources_say(schema: dict[str, Any], number: int, value: Any) -> None:
    document = fields(encode({"definitions": {"a": schema}}))
    found = fields(named(fields(document[9][0])[1])["a"])[number][0]
    assert (fields(found) if isinstance(found, bytes) else found) == value
