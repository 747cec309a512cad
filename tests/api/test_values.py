"""Quantities, selectors, names, times, status texts: the small values everything is made of."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.api import kinds, meta, names, quantity, selectors, status
from k8slite.api.kinds import DEPLOYMENTS, PODS


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1e3", "1e3"),
        ("0", "0"),
        ("-1", "-1"),
        ("512", "512"),
        ("0.1m", "100u"),
        ("1000k", "1M"),
        (".5", "500m"),
        ("0.5Gi", "512Mi"),
    ],
)
def test_a_quantity_is_stored_in_its_canonical_form(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lots", quantity.WRONG_FORM),
        ("1 Gi", quantity.WRONG_FORM),
        ("1Kim", quantity.WRONG_SUFFIX),
        ("", "EOF"),
    ],
)
def test_what_is_no_quantity_is_refused(text: str, message: str) -> None:
    with pytest.raises(quantity.QuantityError) as caught:
        quantity.parse(text)
    assert str(caught.value) == message


def test_rounding_goes_up() -> None:
    assert quantity.value("1m") == 1
    assert quantity.milli_value("100u") == 1
    assert quantity.milli_value("1.5") == 1500
    assert quantity.add("1Gi", "512Mi") == "1536Mi"
    assert quantity.subtract("1", "250m") == "750m"


SUFFIXES = st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi"])


@given(st.integers(-(10**6), 10**6), SUFFIXES)
def test_the_canonical_form_has_the_same_value(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    canonical = quantity.canonical(text)
    assert Fraction(quantity.parse(canonical)) == Fraction(quantity.parse(text))
    assert quantity.canonical(canonical) == canonical


LABELS = {"app": "web", "tier": "front", "n": "5"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("app=web", True),
        ("app==web,tier!=back", True),
        ("app in (web, api)", True),
        ("app notin (web)", False),
        ("missing notin (a)", True),
        ("!missing", True),
        ("missing", False),
        ("n>4", True),
        ("n<5", False),
        ("app=", False),
        ("", True),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    selector = selectors.parse_labels(text)
    assert selector.matches(LABELS) is matches
    assert selectors.parse_labels(str(selector)).matches(LABELS) is matches


def test_a_bad_selector_is_refused_in_the_words_of_the_original() -> None:
    with pytest.raises(selectors.SelectorError) as caught:
        selectors.parse_labels("a b c")
    expected = "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    assert str(caught.value) == expected


def test_a_selector_object_without_terms_matches_all_and_none_matches_nothing() -> None:
    assert selectors.from_object({}).matches(LABELS)
    assert not selectors.from_object(None).matches(LABELS)
    expression = {"key": "app", "operator": "In", "values": ["web"]}
    assert selectors.from_object({"matchExpressions": [expression]}).matches(LABELS)


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}
    selector = selectors.fields_or_400(PODS, "spec.nodeName=n1,status.phase!=Failed")
    assert selector.matches(pod)
    assert selector.required("spec.nodeName") == "n1"
    assert not selectors.parse_fields("metadata.name=b").matches(pod)
    with pytest.raises(status.ApiError) as caught:
        selectors.fields_or_400(PODS, "spec.bananas=1")
    assert caught.value.code == 400
    assert "field label not supported: spec.bananas" in caught.value.message


def test_names() -> None:
    assert names.check_dns_label("a-1") == []
    assert names.check_dns_subdomain("a.b-c.d") == []
    assert names.check_qualified_name("example.com/My_name.x") == []
    assert "must be no more than 63 characters" in names.check_dns_label("a" * 64)
    assert names.check_path_segment("system:node") == []
    assert names.check_path_segment("a/b") == ["may not contain '/'"]


@given(st.floats(0, 4e9))
def test_times_read_back(seconds: float) -> None:
    assert meta.parse_time(meta.format_time(seconds)) == seconds // 1
    assert abs(meta.parse_time(meta.format_micro_time(seconds)) - seconds) < 2e-6


def test_times_with_offsets() -> None:
    base = meta.parse_time("2026-01-02T03:04:05Z")
    assert meta.parse_time("2026-01-02T05:04:05+02:00") == base
    assert meta.parse_time("2026-01-02T03:04:05.5Z") == base + 0.5
    with pytest.raises(ValueError, match="RFC 3339"):
        meta.parse_time("yesterday")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_copy_is_equal_and_shares_nothing(value: object) -> None:
    twin = meta.copy(value)
    assert twin == value
    if isinstance(value, (dict, list)):
        assert twin is not value


def test_conditions_move_only_with_their_status() -> None:
    o: meta.Obj = {}
    assert meta.set_condition(o, {"type": "Ready", "status": "True"}, "t1")
    assert not meta.set_condition(o, {"type": "Ready", "status": "True"}, "t2")
    assert meta.set_condition(o, {"type": "Ready", "status": "True", "reason": "r"}, "t3")
    assert o["conditions"][0]["lastTransitionTime"] == "t1"
    assert meta.set_condition(o, {"type": "Ready", "status": "False"}, "t4")
    assert o["conditions"][0]["lastTransitionTime"] == "t4"


def test_keys_and_owners() -> None:
    owner = {"metadata": {"name": "d", "namespace": "x", "uid": "u"}}
    reference = meta.owner_reference(DEPLOYMENTS, owner)
    child = {"metadata": {"name": "c", "namespace": "x", "ownerReferences": [reference]}}
    assert meta.key(child) == "x/c"
    assert meta.split_key("x/c") == ("x", "c")
    assert meta.split_key("node") == ("", "node")
    assert meta.is_controlled_by(child, owner)
    assert meta.controller_of(owner) is None


def test_kinds_are_found_by_every_name() -> None:
    assert kinds.by_name("deploy") is DEPLOYMENTS
    assert kinds.by_name("Deployment") is DEPLOYMENTS
    assert kinds.by_gvk("apps/v1", "Deployment") is DEPLOYMENTS
    assert kinds.by_path("apps", "v1", "deployments") is DEPLOYMENTS
    assert kinds.KIND["horizontalpodautoscalers.autoscaling"].version == "v2"
    assert PODS.path("d", "x", "log") == "/api/v1/namespaces/d/pods/x/log"
    assert kinds.NODES.path("", "n") == "/api/v1/nodes/n"


def test_status_texts() -> None:
    assert status.not_found(DEPLOYMENTS, "x").to_status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'deployments.apps "x" not found',
        "reason": "NotFound",
        "details": {"name": "x", "group": "apps", "kind": "deployments"},
        "code": 404,
    }
    conflict = status.conflict(PODS, "a")
    assert conflict.message.startswith('Operation cannot be fulfilled on pods "a": the object has')
    errors = [status.required("spec.a"), status.invalid_value("spec.b", 5, "too big")]
    text = 'Pod "x" is invalid: [spec.a: Required value, spec.b: Invalid value: 5: too big]'
    assert status.invalid(PODS, "x", errors).message == text
    again = status.from_status(status.too_many_requests("slow down", 7).to_status())
    assert (again.code, again.reason, again.retry_after) == (429, "TooManyRequests", 7)
