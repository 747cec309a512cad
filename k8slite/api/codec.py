"""Bodies to objects: JSON, YAML and protobuf, with kube-apiserver's complaints.

`decode` is what a handler calls with a request's body. The fast path is one orjson parse and one
walk along the schema; looking for duplicate keys costs a second parse, done only where a cheap
count of colons suggests that there are some. Objects become bytes again by `encode`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import orjson

from k8slite.api import kinds
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.normalise import BadValue, WrongType, normalise
from k8slite.api.schema import Type, type_of_gvk
from k8slite.api.status import ApiError, bad_request, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"

DEPTH_SURE = 200
"""Bodies with so few brackets are not too deep for the JSON library, whose limit is 254."""
IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"


class Expected(NamedTuple):
    """The kind of body a handler waits for, where it is not a resource's own."""

    group: str
    version: str
    kind: str


DELETE_OPTIONS = Expected("", "v1", "DeleteOptions")
EVICTION = Expected("policy", "v1", "Eviction")
TOKEN_REQUEST = Expected("authentication.k8s.io", "v1", "TokenRequest")
BINDING = Expected("", "v1", "Binding")
SCALE = Expected("autoscaling", "v1", "Scale")


class Decoded(NamedTuple):
    """An object, normalised, and the warnings to send along (`unknown field "spec.x"`...)."""

    obj: Obj
    warnings: list[str]


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def media_type(content_type: str) -> str:
    """The bare, lower-case type of a Content-Type header; "" means JSON."""
    return content_type.partition(";")[0].strip().lower() or JSON


def decode(
    body: bytes,
    content_type: str,
    expected: Kind | Expected,
    field_validation: str = WARN,
) -> Decoded:
    """Reads a body that should hold an object of this kind. Raises ApiError (400, 415).

    For a custom resource (a kind without a built-in schema) the object comes back as it was sent.
    """
    media = media_type(content_type)
    if media == PROTOBUF:
        return _decode_protobuf(body, expected)
    problems: list[str] = []
    if media == JSON:
        raw = _parse_json(body, expected, field_validation, problems)
    elif media in (YAML, "application/x-yaml", "text/yaml", "application/apply-patch+yaml"):
        raw = _parse_yaml(body, expected, field_validation, problems)
    else:
        raise unsupported_media_type()
    return from_parsed(raw, expected, field_validation, problems, body)


def from_parsed(
    raw: Any,
    expected: Kind | Expected,
    field_validation: str = WARN,
    problems: list[str] | None = None,
    body: bytes = b"",
) -> Decoded:
    """As `decode`, for data that is parsed already: a patched object, say."""
    problems = [] if problems is None else problems
    if type(raw) is not dict:
        raise _unrecognized(expected, _not_an_object(raw), body or orjson.dumps(raw))
    _check_kind(raw, expected, body)
    type_ = type_of_gvk(expected.group, expected.version, expected.kind)
    if type_ is None:
        obj = raw
    else:
        unknown: list[str] | None = None if field_validation == IGNORE else []
        obj = _normalised(type_, raw, expected, unknown)
        problems.extend(f'unknown field "{path}"' for path in unknown or ())
    if problems and field_validation == STRICT:
        raise _cannot_be_handled(expected, f"strict decoding error: {', '.join(problems)}")
    _fill_kind(obj, expected)
    return Decoded(obj, problems if field_validation == WARN else [])


def _normalised(type_: Type, raw: Obj, expected: Kind | Expected, unknown: list[str] | None) -> Obj:
    try:
        return normalise(type_, raw, unknown)
    except (WrongType, BadValue) as error:
        raise _cannot_be_handled(expected, str(error)) from None


def _fill_kind(obj: Obj, expected: Kind | Expected) -> None:
    group, version = expected.group, expected.version
    obj["apiVersion"] = obj.get("apiVersion") or (f"{group}/{version}" if group else version)
    obj["kind"] = obj.get("kind") or expected.kind
    if type(obj.get("metadata")) is not dict and expected.kind != "DeleteOptions":
        obj["metadata"] = {}


def _cannot_be_handled(expected: Kind | Expected, why: str, kind: str = "") -> ApiError:
    return bad_request(
        f'{kind or expected.kind} in version "{expected.version}" cannot be handled as a'
        f" {expected.kind}: {why}"
    )


def _unrecognized(expected: Kind | Expected, why: str, body: bytes) -> ApiError:
    if not body:
        shown = "<empty>"
    else:
        cut = body[:30]
        shown = cut.decode(errors="replace") if body[:1] == b"{" else cut.hex()
        shown += " ..." if len(body) > 30 else ""
    text = f"the object provided is unrecognized (must be of type {expected.kind})"
    return bad_request(f"{text}: couldn't get version/kind; json parse error: {why} ({shown})")


_TYPE_META = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string'
    ' "json:\\"kind,omitempty\\"" }'
)


def _not_an_object(raw: Any) -> str:
    if isinstance(raw, bool):
        what = "bool"
    elif isinstance(raw, str):
        what = "string"
    else:
        what = "array" if isinstance(raw, list) else "number"
    return f"json: cannot unmarshal {what} into Go value of type {_TYPE_META}"


def _check_kind(raw: Obj, expected: Kind | Expected, body: bytes) -> None:
    """Refuses the body of another kind; one that does not say its kind is taken as expected."""
    api_version, kind = raw.get("apiVersion") or "", raw.get("kind") or ""
    for name, value in (("APIVersion", api_version), ("Kind", kind)):
        if type(value) is not str:
            field = "apiVersion" if name == "APIVersion" else "kind"
            why = f"json: cannot unmarshal number into Go struct field .{field} of type string"
            raise _unrecognized(expected, why, body or orjson.dumps(raw))
    own = f"{expected.group}/{expected.version}" if expected.group else expected.version
    if (not api_version or api_version == own) and (not kind or kind == expected.kind):
        return
    if expected.kind == "DeleteOptions" and kind == "DeleteOptions":
        return
    if not kind:
        return
    group, _, version = api_version.rpartition("/")
    if kind != expected.kind and kinds.by_gvk(api_version or own, kind) is not None:
        package = expected.group.split(".")[0] or "core"
        why = (
            f"converting ({version or expected.version}.{kind}) to ({package}.{expected.kind}):"
            " unknown conversion"
        )
        raise _cannot_be_handled(expected, why, kind)
    if kind == expected.kind and group == expected.group:
        if kinds.by_gvk(api_version, kind) is None:
            raise _not_registered(expected, api_version, kind)
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version"
            f" ({own})"
        )
    raise _not_registered(expected, api_version or own, kind)


def _not_registered(expected: Kind | Expected, api_version: str, kind: str) -> ApiError:
    version = api_version.rpartition("/")[2]
    return bad_request(
        f'{kind} in version "{version}" cannot be handled as a {expected.kind}: no kind "{kind}" is'
        f' registered for version "{api_version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
    )


def _parse_json(
    body: bytes, expected: Kind | Expected, field_validation: str, problems: list[str]
) -> Any:
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unrecognized(expected, _go_syntax_error(body, error), body) from None
    check_depth(raw, body)
    if field_validation != IGNORE and _may_repeat_keys(body, raw):
        problems.extend(f'duplicate field "{path}"' for path in duplicate_fields(body))
    return raw


def check_depth(raw: Any, body: bytes) -> None:
    """What is nested too deeply could not be written again. Raises ApiError 400."""
    if body.count(b"{") + body.count(b"[") > DEPTH_SURE:
        try:
            orjson.dumps(raw)
        except TypeError:
            raise bad_request("the request is nested too deeply") from None


def _may_repeat_keys(body: bytes, raw: Any) -> bool:
    """False only where no key can be there twice: as many `":` before as after a round trip."""
    return body.count(b'":') != orjson.dumps(raw).count(b'":') or b'" :' in body


class _Pairs(dict[str, Any]):
    duplicates: list[str]


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    found = _Pairs(pairs)
    found.duplicates = []
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.duplicates.append(key)
            seen.add(key)
    return found


def duplicate_fields(body: bytes) -> list[str]:
    """Paths of the keys that are written twice ("data.a", "spec.containers[0].name")."""
    paths: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            for key in dict.fromkeys(value.duplicates):
                paths.append(f"{path}.{key}" if path else key)
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else key)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                walk(item, f"{path}[{i}]")

    walk(json.loads(body, object_pairs_hook=_pairs), "")
    return paths


def _go_syntax_error(body: bytes, error: orjson.JSONDecodeError) -> str:
    """The words of Go's decoder for the two usual mishaps; orjson's own for the others."""
    text = body.decode(errors="replace")
    if not text.strip() or error.pos >= len(text.rstrip()):
        return "unexpected end of JSON input"
    if re.search(r"end of (data|file)|EOF|unexpected end", error.msg):
        return "unexpected end of JSON input"
    return f"invalid character '{text[error.pos]}' looking for beginning of value"


def _parse_yaml(
    body: bytes, expected: Kind | Expected, field_validation: str, problems: list[str]
) -> Any:
    from k8slite.api import yaml_codec

    try:
        return yaml_codec.load(body, problems if field_validation != IGNORE else None)
    except yaml_codec.YamlError as error:
        raise bad_request(f"error decoding YAML: {error}") from None


def _decode_protobuf(body: bytes, expected: Kind | Expected) -> Decoded:
    from k8slite.api import protobuf

    try:
        envelope = protobuf.read_envelope(body)
        said: Obj = {"apiVersion": envelope.api_version, "kind": envelope.kind}
        _check_kind(said, expected, body)
        type_ = type_of_gvk(expected.group, expected.version, expected.kind)
        if type_ is None:
            raise unsupported_media_type()
        raw = protobuf.read_object(type_, envelope.raw)
    except protobuf.ProtobufError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None
    except UnicodeDecodeError as error:
        raise bad_request(f"the object provided holds text that is not UTF-8: {error}") from None
    obj = _normalised(type_, {**raw, **said}, expected, None)
    _fill_kind(obj, expected)
    return Decoded(obj, [])
