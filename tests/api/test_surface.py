"""What clients see: tables, discovery, OpenAPI, custom resources, updates."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from k8slite.api import custom, defaults, discovery, kinds, openapi, strategies, tables, validation
from k8slite.api.kinds import CONFIG_MAPS, DEPLOYMENTS, KIND, PODS, SECRETS, SERVICES
from k8slite.api.meta import Obj, copy
from k8slite.api.tables.durations import human_duration
from k8slite.api.tables.json_path import find

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (12000, "3h20m"),
        (8 * 3600, "8h"),
        (48 * 3600, "2d"),
        (51 * 3600, "2d3h"),
        (192 * 3600, "8d"),
        (729 * 86400, "729d"),
        (800 * 86400, "2y70d"),
        (3000 * 86400, "8y"),
        (-5, "<invalid>"),
    ],
)
def test_durations(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def pod(status: Obj, **more: Any) -> Obj:
    metadata = {"name": "p", "namespace": "d", "creationTimestamp": "2025-12-31T23:59:00Z"}
    spec = {"containers": [{"name": "a"}, {"name": "b"}], **more.pop("spec", {})}
    return {"metadata": {**metadata, **more}, "spec": spec, "status": status}


def waiting(reason: str, restarts: int = 0) -> Obj:
    return {"name": "a", "restartCount": restarts, "state": {"waiting": {"reason": reason}}}


READY = {"name": "b", "ready": True, "restartCount": 0, "state": {"running": {}}}
DONE = {
    "name": "a",
    "restartCount": 0,
    "state": {"terminated": {"reason": "Completed", "exitCode": 0}},
}


@pytest.mark.parametrize(
    ("o", "ready", "reason", "restarts"),
    [
        (pod({"phase": "Pending"}), "0/2", "Pending", "0"),
        (pod({"phase": "Running", "containerStatuses": [READY, READY]}), "2/2", "Running", "0"),
        (
            pod({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff", 3), READY]}),
            "1/2",
            "CrashLoopBackOff",
            "3",
        ),
        (pod({"phase": "Succeeded", "containerStatuses": [DONE, DONE]}), "0/2", "Completed", "0"),
        (
            pod({"phase": "Running"}, deletionTimestamp="2026-01-01T00:00:00Z"),
            "0/2",
            "Terminating",
            "0",
        ),
        (
            pod(
                {
                    "phase": "Pending",
                    "initContainerStatuses": [{"name": "i", "state": {"running": {}}}],
                },
                spec={"initContainers": [{"name": "i"}]},
            ),
            "0/2",
            "Init:0/1",
            "0",
        ),
    ],
)
def test_pod_rows(o: Obj, ready: str, reason: str, restarts: str) -> None:
    cells = tables.cells_of(PODS, o, NOW)
    assert cells[:5] == ["p", ready, reason, restarts, "60s"]


@pytest.mark.parametrize("kind", [k for k in kinds.KINDS if k.columns], ids=str)
def test_every_kind_fills_its_columns(kind: kinds.Kind) -> None:
    o: Obj = {"metadata": {"name": "x", "creationTimestamp": "2025-12-31T00:00:00Z"}}
    assert len(tables.cells_of(kind, o, NOW)) == len(kind.columns)


def test_a_table() -> None:
    o: Obj = {"metadata": {"name": "c", "creationTimestamp": None}, "data": {"a": "b"}}
    table = tables.to_table(CONFIG_MAPS, [o], NOW, {"resourceVersion": "5"})
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table["rows"][0]["cells"] == ["c", 1, "<unknown>"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert tables.to_table(CONFIG_MAPS, [o], NOW, columns=False)["columnDefinitions"] is None


def test_json_paths() -> None:
    o = {"a": {"b.c": 1, "l": [{"type": "x", "v": 1}, {"type": "Ready", "v": 2}]}}
    assert find(o, ".a.l[0].v") == [1]
    assert find(o, ".a['b.c']") == [1]
    assert find(o, r".a.b\.c") == [1]
    assert find(o, '.a.l[?(@.type=="Ready")].v') == [2]
    assert find(o, ".a.l[*].v") == [1, 2]
    assert find(o, ".nothing.here") == []


def test_discovery() -> None:
    groups = discovery.api_group_list(kinds.KINDS)["groups"]
    autoscaling = next(g for g in groups if g["name"] == "autoscaling")
    assert autoscaling["preferredVersion"]["version"] == "v2"
    core = discovery.api_resource_list(kinds.KINDS, "", "v1")
    assert core is not None
    by_name = {r["name"]: r for r in core["resources"]}
    assert by_name["pods"]["shortNames"] == ["po"]
    assert by_name["pods/eviction"]["group"] == "policy"
    assert discovery.api_resource_list(kinds.KINDS, "no", "v1") is None
    together = discovery.aggregated(kinds.KINDS, core=True)
    assert together["apiVersion"] == "apidiscovery.k8s.io/v2"
    assert len(together["items"]) == 1


def _references(value: Any) -> Any:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_open_api_documents_are_closed_and_say_that_patch_validates_fields() -> None:
    documents = dict(openapi.built_in_documents())
    for path, raw in documents.items():
        document = orjson.loads(raw)
        known = {f"#/components/schemas/{n}" for n in document["components"]["schemas"]}
        assert set(_references(document)) <= known, path
    apps = orjson.loads(documents["apis/apps/v1"])
    patch = apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in [p["name"] for p in patch["parameters"]]
    assert patch["x-kubernetes-group-version-kind"]["kind"] == "Deployment"
    index = openapi.index(documents.items())
    assert index["paths"]["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")


SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["s"],
            "properties": {
                "n": {"type": "integer", "default": 5, "maximum": 10},
                "s": {"type": "string", "enum": ["a", "b"]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "port": {"x-kubernetes-int-or-string": True},
            },
        }
    },
}


def messages(spec: Obj) -> list[str]:
    return [e.message() for e in custom.validate_schema(SCHEMA, {"spec": spec})]


def test_custom_resources() -> None:
    o: Obj = {"metadata": {"name": "x", "odd": 1}, "spec": {"s": "a", "bad": 1, "free": {"x": 1}}}
    unknown: list[str] = []
    custom.prune(SCHEMA, o, unknown)
    assert unknown == ["spec.bad", "metadata.odd"]
    custom.apply_schema_defaults(SCHEMA, o)
    assert o == {"metadata": {"name": "x"}, "spec": {"s": "a", "free": {"x": 1}, "n": 5}}
    assert custom.validate_schema(SCHEMA, o) == []
    assert messages({"s": "a", "n": 50}) == [
        "spec.n: Invalid value: 50: spec.n in body should be less than or equal to 10"
    ]
    assert messages({"s": "c"}) == ['spec.s: Unsupported value: "c": supported values: "a", "b"']
    assert messages({"s": "a", "n": "five"}) == [
        'spec.n: Invalid value: "string": spec.n in body must be of type integer: "string"'
    ]
    assert messages({}) == ["spec.s: Required value"]
    assert messages({"s": "a", "port": "http"}) == []


def test_the_kinds_of_a_definition() -> None:
    versions = [
        {"name": n, "served": True, "storage": n == "v1", "schema": {"openAPIV3Schema": SCHEMA}}
        for n in ("v1beta1", "v1", "v1alpha1")
    ]
    names = {"plural": "foos", "kind": "Foo", "shortNames": ["fo"]}
    spec = {"group": "rec.io", "scope": "Namespaced", "names": names, "versions": versions}
    found = list(custom.custom_kinds({"spec": spec}))
    assert [f.kind.version for f in found] == ["v1", "v1beta1", "v1alpha1"]
    assert found[0].kind.path("d", "x") == "/apis/rec.io/v1/namespaces/d/foos/x"
    assert found[0].storage
    document = openapi.document([found[0].kind], {"Foo": SCHEMA})
    assert "io.rec.v1.Foo" in document["components"]["schemas"]


def stored(kind: kinds.Kind, o: Obj) -> Obj:
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, **copy(o)}
    obj["metadata"] |= {"namespace": "d", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    defaults.apply_defaults(kind, obj)
    strategies.prepare_for_create(kind, obj)
    assert validation.validate_create(kind, obj) == []
    return obj


def update(kind: kinds.Kind, old: Obj, new: Obj) -> list[str]:
    strategies.prepare_for_update(kind, new, old)
    return [e.message() for e in validation.validate_update(kind, new, old)]


POD: Obj = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def test_pods_may_change_their_image_only() -> None:
    old = stored(PODS, POD)
    new = copy(old)
    new["spec"]["containers"][0]["image"] = "other"
    new["status"] = {"phase": "Running"}
    assert update(PODS, old, new) == []
    assert new["metadata"]["generation"] == 2
    assert new["status"]["phase"] == "Pending"
    new["spec"]["hostNetwork"] = True
    refusals = update(PODS, old, new)
    assert len(refusals) == 1
    assert refusals[0].startswith("spec: Forbidden: pod updates may not change fields other than")
    assert '"hostNetwork": true' in refusals[0]


def test_metadata_that_may_not_change() -> None:
    old = stored(CONFIG_MAPS, {"metadata": {"name": "c"}})
    new = copy(old)
    new["metadata"]["uid"] = "other"
    refusal = 'metadata.uid: Invalid value: "other": field is immutable'
    assert update(CONFIG_MAPS, old, new) == [refusal, refusal]
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = copy(old)
    new["metadata"]["finalizers"] = ["q.r/s"]
    refusals = update(CONFIG_MAPS, old, new)
    assert refusals[0].endswith('found new finalizers []string{"q.r/s"}')


def test_immutable_data() -> None:
    for kind in (CONFIG_MAPS, SECRETS):
        old = stored(kind, {"metadata": {"name": "c"}, "data": {"a": "YQ=="}, "immutable": True})
        new = copy(old)
        new["data"] = {"a": "Yg=="}
        text = "data: Forbidden: field is immutable when `immutable` is set"
        assert update(kind, old, new) == [text]


TEMPLATE: Obj = {"metadata": {"labels": {"app": "a"}}, "spec": POD["spec"]}


def test_generations_and_selectors_of_deployments() -> None:
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE}
    old = stored(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
    new = copy(old)
    new["metadata"]["labels"] = {"x": "y"}
    assert update(DEPLOYMENTS, old, new) == []
    assert new["metadata"]["generation"] == 1
    new["spec"]["replicas"] = 3
    assert update(DEPLOYMENTS, old, new) == []
    assert new["metadata"]["generation"] == 2
    new["spec"]["selector"] = {"matchLabels": {"app": "a", "b": "c"}}
    new["spec"]["template"]["metadata"]["labels"]["b"] = "c"
    assert [m.split(":")[0] for m in update(DEPLOYMENTS, old, new)] == ["spec.selector"]


def test_services_keep_their_addresses() -> None:
    old = stored(SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    old["spec"] |= {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}
    new = copy(old)
    del new["spec"]["clusterIP"], new["spec"]["clusterIPs"]
    assert update(SERVICES, old, new) == []
    assert new["spec"]["clusterIP"] == "10.96.0.9"
    new["spec"] |= {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}
    assert update(SERVICES, old, new) == [
        'spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set'
    ]
    named = copy(old)
    named["spec"] |= {"type": "ExternalName", "externalName": "a.b"}
    assert update(SERVICES, old, named) == []
    assert "clusterIP" not in named["spec"]


def test_a_status_update_changes_nothing_else() -> None:
    old = stored(PODS, POD)
    new = copy(old)
    new["spec"]["hostNetwork"] = True
    new["status"]["phase"] = "Running"
    strategies.prepare_for_status_update(PODS, new, old)
    assert new["spec"] == old["spec"]
    assert new["status"]["phase"] == "Running"


def test_secrets_fold_their_text() -> None:
    secret = stored(SECRETS, {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    assert secret["data"] == {"k": "dg=="}
    assert "stringData" not in secret
    assert KIND["secrets"] is SECRETS
