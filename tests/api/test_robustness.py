"""Whatever a client sends is answered: with an object or with an ApiError, never with a crash."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api import codec, defaults, kinds, strategies, tables, validation
from k8slite.api.apply import track_update
from k8slite.api.kinds import DEPLOYMENTS, PODS, Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.schema import Field, Type, type_of
from k8slite.api.status import ApiError, invalid

PERSISTED = [k for k in kinds.KINDS if k.persisted]
DEPTH_MAX = 7


def run(kind: Kind, body: Any) -> Obj | None:
    """Create and update the way a server does; None where the body was refused."""
    try:
        obj = codec.decode(orjson.dumps(body), "", kind).obj
        obj["metadata"] |= {"name": "x", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
        if kind.namespaced:
            obj["metadata"]["namespace"] = "d"
        defaults.apply_defaults(kind, obj)
        strategies.prepare_for_create(kind, obj)
        track_update(kind, None, obj, "m", "2026-01-01T00:00:00Z")
        errors = validation.validate_create(kind, obj)
        again = copy(obj)
        strategies.prepare_for_update(kind, again, obj)
        errors += validation.validate_update(kind, again, obj)
        if errors:
            raise invalid(kind, "x", errors)
    except ApiError as error:
        orjson.dumps(error.to_status())
        return None
    tables.cells_of(kind, obj, 2e9)
    return obj


def value_of(field: Field, shape: str, rng: random.Random, depth: int) -> Any:
    if shape:
        count = rng.choice((0, 1, 1, 2))
        inner = [value_of(field, shape[1:], rng, depth) for _ in range(count)]
        return inner if shape[0] == "[" else {f"k{i}": v for i, v in enumerate(inner)}
    match field.code:
        case "@":
            return struct_of(field.type, rng, depth + 1)
        case "i" | "l":
            return rng.choice((-1, 0, 1, 80, 70000))
        case "b":
            return rng.random() < 0.5
        case "q":
            return rng.choice(("1", "500m", "-1", "1Gi"))
        case "x":
            return rng.choice((0, 80, "http", "25%", "Bad!"))
        case "t":
            return "2026-01-01T00:00:00Z"
        case "u":
            return "2026-01-01T00:00:00.000000Z"
        case "B":
            return "YQ=="
        case "n":
            return 1.5
        case "a":
            return rng.choice(({}, {"a": 1}))
    return rng.choice(("", "a", "a-b", "Bad_Value!", "In", "Always", "10.0.0.1", "x" * 300))


def struct_of(type_: Type, rng: random.Random, depth: int) -> Obj:
    chance = 0.6 if depth < 2 else 1.5 / (len(type_.fields) + 1)
    if depth > DEPTH_MAX:
        chance = 0.0
    return {
        name: value_of(field, field.shape, rng, depth)
        for name, field in type_.fields.items()
        if name not in ("apiVersion", "kind") and rng.random() < chance
    }


@pytest.mark.parametrize("kind", PERSISTED, ids=lambda k: f"{k.resource}.{k.version}")
def test_empty_and_random_objects_of_every_kind(kind: Kind) -> None:
    type_ = type_of(kind)
    assert type_ is not None
    run(kind, {})
    run(kind, {"metadata": {}, "spec": {}, "status": {}})
    for seed in range(60):
        run(kind, struct_of(type_, random.Random(seed), 0))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMED = st.dictionaries(st.sampled_from(["metadata", "spec", "kind", "apiVersion", "x"]), JSON)


@given(JSON | NAMED)
def test_any_json_is_answered(body: Any) -> None:
    run(PODS, body)
    run(DEPLOYMENTS, body)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(body: bytes) -> None:
    for media in (codec.JSON, codec.YAML, codec.PROTOBUF):
        for head in (b"", b"k8s\x00"):
            try:
                codec.decode(head + body, media, PODS)
            except ApiError:
                continue
