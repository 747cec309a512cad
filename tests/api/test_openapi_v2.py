"""OpenAPI v2: everything it refers to is there, and it has no words that v2 does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from k8slite.api import openapi
from k8slite.api.kinds import KINDS
from k8slite.api.openapi_v2 import swagger


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
