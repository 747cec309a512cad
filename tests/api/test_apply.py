"""Server-side apply: who owns what, conflicts, and what vanishes when it is no longer said."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api import codec, defaults, strategies
from k8slite.api.apply import server_side_apply, track_update
from k8slite.api.apply.fields import compare, fields_of_new, from_fields_v1, to_fields_v1
from k8slite.api.apply.shapes import shape_of
from k8slite.api.kinds import CONFIG_MAPS, DEPLOYMENTS, Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.status import ApiError
from tests.api import replay

OWNERS = replay.load("owners.json.gz")


def owners(o: Obj) -> dict[str, Any]:
    return {e["manager"]: e["fieldsV1"] for e in o["metadata"].get("managedFields", ())}


@pytest.mark.parametrize("recorded", OWNERS, ids=lambda r: replay.kind_of(r["path"]).resource)
def test_a_creator_owns_what_a_stock_server_says(recorded: Any) -> None:
    kind = replay.kind_of(recorded["path"])
    obj = codec.decode(orjson.dumps(recorded["body"]), "", kind).obj
    defaults.apply_defaults(kind, obj)
    if kind.resource in ("pods", "secrets"):
        strategies.prepare_for_create(kind, obj)
    track_update(kind, None, obj, "Python-urllib", "2026-01-01T00:00:00Z")
    found = [{k: v for k, v in e.items() if k != "time"} for e in obj["metadata"]["managedFields"]]
    assert found == recorded["managedFields"]


@pytest.mark.parametrize("base", replay.load("fields.json.gz")["bases"], ids=lambda b: b["kind"])
def test_a_creators_fields_equal_those_found_by_comparing(base: Any) -> None:
    kind = replay.kind_of(base["path"])
    obj = codec.decode(orjson.dumps(base["object"]), "", kind).obj
    shape = shape_of(kind)
    for value, before in ((obj, {}), (obj, {"metadata": {}, "spec": None}), (obj, obj), ({}, {})):
        changed = compare(shape, before, value)
        wanted = to_fields_v1(changed.added | changed.modified)
        assert (fields_of_new(shape, value, before) or {}) == wanted
        assert orjson.dumps(fields_of_new(shape, value, before) or {}) == orjson.dumps(wanted)


class Store:
    """One object and a clock: what a server would keep between two applies."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.live: Obj | None = None
        self.time = 0

    def apply(self, manager: str, sent: Obj, *, force: bool = False) -> Obj:
        self.time += 1
        body = codec.from_parsed(copy(sent), self.kind).obj
        now = f"2026-01-01T00:00:{self.time:02}Z"
        obj = server_side_apply(self.kind, self.live, body, manager, now, force=force, sent=sent)
        defaults.apply_defaults(self.kind, obj)
        self.live = obj
        return obj


def config_map(**data: str) -> Obj:
    return {"metadata": {"name": "a"}, "data": data}


def test_shared_fields_conflicts_and_force() -> None:
    store = Store(CONFIG_MAPS)
    store.apply("one", config_map(k="1", j="1"))
    both = store.apply("two", config_map(k="1"))
    assert owners(both) == {
        "one": {"f:data": {"f:j": {}, "f:k": {}}},
        "two": {"f:data": {"f:k": {}}},
    }
    with pytest.raises(ApiError) as caught:
        store.apply("two", config_map(k="2"))
    assert caught.value.to_status()["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.k"}
    ]
    forced = store.apply("two", config_map(k="2"), force=True)
    assert forced["data"] == {"j": "1", "k": "2"}
    assert owners(forced)["one"] == {"f:data": {"f:j": {}}}
    dropped = store.apply("one", config_map())
    assert dropped["data"] == {"k": "2"}


def deployment(*containers: Obj) -> Obj:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": list(containers)}}
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": template}
    return {"metadata": {"name": "d"}, "spec": spec}


def test_items_of_lists_have_owners() -> None:
    store = Store(DEPLOYMENTS)
    store.apply("one", deployment({"name": "c", "image": "1"}))
    side = {"name": "side", "image": "s", "ports": [{"containerPort": 80}]}
    both = store.apply("two", deployment(side))
    assert [c["name"] for c in both["spec"]["template"]["spec"]["containers"]] == ["c", "side"]
    assert 'k:{"containerPort":80,"protocol":"TCP"}' in str(owners(both)["two"])
    with pytest.raises(ApiError, match=r'containers\[name="c"\].image'):
        store.apply("two", deployment({"name": "c", "image": "other"}))
    alone = store.apply("two", deployment())
    assert [c["name"] for c in alone["spec"]["template"]["spec"]["containers"]] == ["c"]


def test_an_update_takes_over_what_it_changes() -> None:
    store = Store(CONFIG_MAPS)
    old = store.apply("one", config_map(k="1", j="1"))
    new = copy(old)
    new["data"] = {"k": "2"}
    track_update(CONFIG_MAPS, old, new, "editor", "2026-01-01T00:01:00Z")
    assert owners(new) == {"editor": {"f:data": {"f:k": {}}}}
    again = copy(new)
    track_update(CONFIG_MAPS, new, again, "editor", "2026-01-01T00:02:00Z")
    assert again == new


def test_what_was_there_before_the_first_apply_has_an_owner() -> None:
    store = Store(CONFIG_MAPS)
    store.live = config_map(k="1")
    with pytest.raises(ApiError, match='conflict with "before-first-apply" using v1'):
        store.apply("one", config_map(k="2"))
    both = store.apply("one", config_map(n="1"))
    assert sorted(owners(both)) == ["before-first-apply", "one"]


def test_a_configuration_may_not_bring_owners() -> None:
    with pytest.raises(ApiError, match="managedFields must be nil"):
        Store(CONFIG_MAPS).apply("one", {"metadata": {"name": "a", "managedFields": []}})


ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"n":1}', 'v:"x"'])


@given(st.sets(st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple), max_size=8))
def test_sets_of_fields_survive_their_written_form(paths: set[tuple[str, ...]]) -> None:
    assert from_fields_v1(to_fields_v1(paths)) == paths
