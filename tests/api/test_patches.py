"""JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api.kinds import CONFIG_MAPS, DEPLOYMENTS, PODS
from k8slite.api.meta import Obj, copy
from k8slite.api.patch import (
    create_merge_patch,
    json_patch,
    merge_patch,
    strategic_merge_patch,
)
from k8slite.api.status import ApiError

SCALARS = st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
WITHOUT_NULLS = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(
        SCALARS | st.lists(SCALARS, max_size=2),
        lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@given(WITHOUT_NULLS, WITHOUT_NULLS)
def test_a_created_merge_patch_leads_from_one_to_the_other(old: Obj, new: Obj) -> None:
    before = copy(old)
    assert merge_patch(old, create_merge_patch(old, new)) == new
    assert old == before


DOCUMENT: Obj = {"a": {"b": [1, 2, 3]}, "x/y": 1}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/a/b/1", "value": 9}], {"a": {"b": [1, 9, 2, 3]}, "x/y": 1}),
        ([{"op": "add", "path": "/a/b/-", "value": 9}], {"a": {"b": [1, 2, 3, 9]}, "x/y": 1}),
        ([{"op": "remove", "path": "/x~1y"}], {"a": {"b": [1, 2, 3]}}),
        ([{"op": "replace", "path": "/a/b", "value": None}], {"a": {"b": None}, "x/y": 1}),
        ([{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "x/y": 1, "c": [1, 2, 3]}),
        (
            [{"op": "copy", "from": "/x~1y", "path": "/a/c"}],
            {"a": {"b": [1, 2, 3], "c": 1}, "x/y": 1},
        ),
        ([{"op": "test", "path": "/a/b/0", "value": 1}], DOCUMENT),
    ],
)
def test_json_patch(operations: list[Obj], expected: Obj) -> None:
    before = copy(DOCUMENT)
    assert json_patch(DOCUMENT, operations) == expected
    assert before == DOCUMENT


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ({"op": "remove"}, 400),
        ([5], 400),
        ([{"op": "test", "path": "/a/b/0", "value": 2}], 422),
        ([{"op": "test", "path": "/a/b/0", "value": True}], 422),
        ([{"op": "remove", "path": "/nope"}], 422),
        ([{"op": "add", "path": "/a/b/9", "value": 1}], 422),
        ([{"op": "fly", "path": "/a"}], 422),
    ],
)
def test_json_patches_that_do_not_apply(operations: Any, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch(DOCUMENT, operations)
    assert caught.value.code == code


def pod(**spec: Any) -> Obj:
    return {"metadata": {"name": "p"}, "spec": spec}


def strategic(spec: Obj, patch: Obj) -> Obj:
    result = strategic_merge_patch(PODS, pod(**spec), {"spec": patch})["spec"]
    assert isinstance(result, dict)
    return result


TWO = [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]


def test_lists_are_merged_by_key() -> None:
    merged = strategic({"containers": TWO}, {"containers": [{"name": "b", "image": "3"}]})
    assert merged["containers"] == [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]
    merged = strategic({"containers": TWO}, {"containers": [{"name": "c", "image": "x"}]})
    assert [c["name"] for c in merged["containers"]] == ["c", "a", "b"]


def test_directives() -> None:
    gone = strategic({"containers": TWO}, {"containers": [{"name": "a", "$patch": "delete"}]})
    assert [c["name"] for c in gone["containers"]] == ["b"]
    replaced = strategic(
        {"containers": TWO}, {"containers": [{"$patch": "replace"}, {"name": "z"}]}
    )
    assert replaced["containers"] == [{"name": "z"}]
    ordered = strategic(
        {"containers": TWO},
        {
            "$setElementOrder/containers": [{"name": "e"}, {"name": "b"}],
            "containers": [{"name": "e"}],
        },
    )
    assert [c["name"] for c in ordered["containers"]] == ["e", "a", "b"]
    kept = strategic({"dnsConfig": {"searches": ["x"]}}, {"dnsConfig": {"$patch": "replace"}})
    assert kept["dnsConfig"] == {}


def test_primitive_lists_and_nulls() -> None:
    before: Obj = {"metadata": {"name": "c", "finalizers": ["a/a", "b/b"]}, "data": {"k": "v"}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"], "finalizers": ["c/c"]}}
    after = strategic_merge_patch(CONFIG_MAPS, before, patch)
    assert after["metadata"]["finalizers"] == ["c/c", "b/b"]
    assert strategic_merge_patch(CONFIG_MAPS, before, {"data": {"k": None}})["data"] == {}


def test_retain_keys() -> None:
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    after = strategic_merge_patch(DEPLOYMENTS, before, patch)
    assert after["spec"]["strategy"] == {"type": "Recreate"}


def test_atomic_lists_are_replaced() -> None:
    assert strategic(
        {"containers": [{"name": "a", "args": ["1", "2"]}]},
        {"containers": [{"name": "a", "args": ["3"]}]},
    )["containers"] == [{"name": "a", "args": ["3"]}]


def test_a_bad_directive_is_a_400() -> None:
    with pytest.raises(ApiError) as caught:
        strategic({"containers": TWO}, {"containers": [{"name": "a", "$patch": "explode"}]})
    assert caught.value.code == 400
