"""Custom resources: kinds, pruning, defaults and validation from a definition's structural schema.

A `CustomKind` is one served version of a CustomResourceDefinition. The walk over an object is the
same three times: what the schema does not know is pruned, what is missing is defaulted, what is
left is checked, with the messages of kube-apiserver's go-openapi validator; then by its rules in
CEL (`cel/rules.py`). Patterns are RE2's, so that none can run away.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from attrs import frozen

from k8slite.api import meta
from k8slite.api.cel.program import matches
from k8slite.api.cel.rules import check_rules, has_rules
from k8slite.api.kinds import Column, Kind, Subresource
from k8slite.api.meta import Obj, copy
from k8slite.api.ratcheting import that_are_new
from k8slite.api.schema import get_type
from k8slite.api.status import (
    REQUIRED,
    TOO_LONG,
    TOO_MANY,
    TYPE_INVALID,
    FieldError,
    duplicate,
    invalid_value,
    not_supported,
    required,
    too_many,
)

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUB_VERBS = ("get", "patch", "update")


@frozen
class CustomKind:
    """One served version: its kind, its schema, and what `kubectl get` shows."""

    kind: Kind
    schema: Obj
    storage: str
    """The apiVersion in which objects are stored."""
    conversion: Obj | None
    """The webhook that converts between versions; None: they differ in nothing."""
    terminating: bool
    printer_columns: tuple[Obj, ...]
    scale: Obj | None
    deprecation_warning: str
    has_rules: bool


def custom_kinds(definition: Obj) -> Iterator[CustomKind]:
    """The served versions of a definition, in the order in which discovery prefers them."""
    spec = definition["spec"]
    names, group = spec["names"], spec["group"]
    stored_as = next(
        (f"{group}/{v['name']}" for v in spec.get("versions") or () if v.get("storage")), ""
    )
    conversion = spec.get("conversion") or {}
    webhook = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None
    versions = sorted(spec.get("versions") or (), key=lambda v: version_order(v["name"]))
    for version in versions:
        if not version.get("served"):
            continue
        subresources = version.get("subresources") or {}
        kind = Kind(
            group=group,
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names.get("singular", names["kind"].lower()),
            namespaced=spec.get("scope") == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            verbs=_VERBS,
            subresources=_subresources(names["kind"], group, version["name"], subresources),
            columns=(Column("Name", "string", "name", 0), Column("Age", "date", "", 0)),
            list_kind=names.get("listKind", names["kind"] + "List"),
            stored_as="" if webhook is None else stored_as,
            selectable=tuple(
                each["jsonPath"].removeprefix(".") for each in version.get("selectableFields") or ()
            ),
        )
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        yield CustomKind(
            kind=kind,
            schema=schema,
            storage=stored_as,
            conversion=webhook,
            terminating=bool((definition.get("metadata") or {}).get("deletionTimestamp")),
            printer_columns=tuple(version.get("additionalPrinterColumns") or ())
            or ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},),
            scale=subresources.get("scale"),
            deprecation_warning=_deprecation(version, group, names["kind"]),
            has_rules=has_rules(schema),
        )


class Names(NamedTuple):
    """Names that are taken in a group."""

    resources: set[str]
    kinds: set[str]


def accept_names(definition: Obj, taken: Names) -> tuple[Obj, tuple[str, str] | None]:
    """The names that a definition has from now on; and why it has not got all that it wants: the
    reason and message of its condition.
    """
    wanted = definition["spec"]["names"]
    accepted: Obj = copy((definition.get("status") or {}).get("acceptedNames") or {})
    conflict: tuple[str, str] | None = None
    for key, word, used in (
        ("plural", "Plural", taken.resources),
        ("singular", "Singular", taken.resources),
        ("shortNames", "ShortNames", taken.resources),
        ("kind", "Kind", taken.kinds),
        ("listKind", "ListKind", taken.kinds),
    ):
        asked = wanted.get(key)
        names = asked if isinstance(asked, list) else [asked or ""]
        mine = accepted.get(key)
        mine = mine if isinstance(mine, list) else [mine]
        clashes = [f'"{name}" is already in use' for name in names if name in used - {*mine}]
        if clashes:
            told = clashes[0] if len(clashes) == 1 else f"[{', '.join(clashes)}]"
            conflict = (f"{word}Conflict", told)
        elif asked is None:
            accepted.pop(key, None)
        else:
            accepted[key] = asked
    accepted.pop("categories", None)
    if wanted.get("categories"):
        accepted["categories"] = wanted["categories"]
    return accepted, conflict


def _subresources(kind: str, group: str, version: str, given: Obj) -> dict[str, Subresource]:
    found: dict[str, Subresource] = {}
    if "status" in given:
        found["status"] = Subresource("status", kind, group, version, _SUB_VERBS)
    if "scale" in given:
        found["scale"] = Subresource("scale", "Scale", "autoscaling", "v1", _SUB_VERBS)
    return found


def _deprecation(version: Obj, group: str, kind: str) -> str:
    if not version.get("deprecated"):
        return ""
    text: str = (
        version.get("deprecationWarning") or f"{group}/{version['name']} {kind} is deprecated"
    )
    return text


_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


def version_order(name: str) -> tuple[int, int, int, str]:
    """Sort key: v2, v1, v1beta2, v1beta1, v1alpha1, then all else by name."""
    match = _VERSION.fullmatch(name)
    if match is None:
        return (3, 0, 0, name)
    level = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (level, -int(match[1]), -int(match[3] or 0), "")


_ROOT_FIELDS = frozenset(("apiVersion", "kind", "metadata"))


def prune(schema: Obj, o: Obj, unknown: list[str]) -> None:
    """Drops, in place, what the schema does not specify; the paths are added to `unknown`."""
    root = {**schema, "properties": {**(schema.get("properties") or {})}}
    for field in _ROOT_FIELDS:
        root["properties"][field] = {"x-kubernetes-preserve-unknown-fields": True}
    _prune(root, o, "", unknown)
    if isinstance(o.get("metadata"), dict):
        known = get_type("meta.v1.ObjectMeta").fields
        for name in [n for n in o["metadata"] if n not in known]:
            del o["metadata"][name]
            unknown.append(f"metadata.{name}")


def _prune(schema: Obj, value: Any, path: str, unknown: list[str]) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for i, item in enumerate(value):
                _prune(items, item, f"{path}[{i}]", unknown)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    embedded = schema.get("x-kubernetes-embedded-resource")
    for name in list(value):
        below = f"{path}.{name}" if path else name
        if name in properties:
            _prune(properties[name], value[name], below, unknown)
        elif isinstance(extra, dict):
            _prune(extra, value[name], below, unknown)
        elif extra is True or keeps or (embedded and name in _ROOT_FIELDS):
            continue
        else:
            del value[name]
            unknown.append(below)


def apply_schema_defaults(schema: Obj, value: Any) -> None:
    """Fills in `default`s, in place; a null that may not be null is first taken for absent."""
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for item in value:
                apply_schema_defaults(items, item)
        return
    if not isinstance(value, dict):
        return
    for name, inner in (schema.get("properties") or {}).items():
        if (
            name in value
            and value[name] is None
            and not inner.get("nullable")
            and "default" in inner
        ):
            del value[name]
        if name not in value and "default" in inner:
            value[name] = copy(inner["default"])
        if name in value:
            apply_schema_defaults(inner, value[name])
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        known = schema.get("properties") or {}
        for name, item in value.items():
            if name not in known:
                apply_schema_defaults(extra, item)


_BLOCKING = (REQUIRED, TOO_LONG, TOO_MANY, TYPE_INVALID)
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation"
)


def validate_custom(custom: CustomKind, new: Obj, old: Obj | None = None) -> list[FieldError]:
    """Errors of a custom resource: its structure, then its rules. What an update leaves as it was
    is not held against it, although the schema has become stricter.
    """
    errors = validate_schema(custom.schema, new)
    if errors and old is not None:
        errors = that_are_new(custom.schema, errors, new, old)
    if not custom.has_rules:
        return errors
    if any(error.type in _BLOCKING for error in errors):
        return [*errors, invalid_value("<nil>", None, _NOT_CHECKED)]
    return [*errors, *check_rules(custom.schema, new, old)]


def validate_schema(schema: Obj, o: Obj) -> list[FieldError]:
    """Errors of a whole custom resource (its metadata is checked elsewhere)."""
    errors: list[FieldError] = []
    properties = {
        k: v for k, v in (schema.get("properties") or {}).items() if k not in _ROOT_FIELDS
    }
    needed = [r for r in schema.get("required") or () if r not in _ROOT_FIELDS]
    _validate({**schema, "properties": properties, "required": needed}, o, "", errors)
    return errors


_TYPE_NAMES = {
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def _has_type(value: Any, type_: str) -> bool:
    match type_:
        case "integer":
            whole = isinstance(value, float) and value.is_integer()
            return (isinstance(value, int) and not isinstance(value, bool)) or whole
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
    return _TYPE_NAMES[type(value)] == type_


def _validate(schema: Obj, value: Any, path: str, errors: list[FieldError]) -> None:
    if value is None and schema.get("nullable"):
        return
    if not _check_type(schema, value, path, errors):
        return
    if "enum" in schema and value not in schema["enum"]:
        shown = [v if isinstance(v, str) else str(v) for v in schema["enum"]]
        errors.append(not_supported(path or "<nil>", value, shown))
    if isinstance(value, str):
        _validate_string(schema, value, path, errors)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _validate_number(schema, value, path, errors)
    elif isinstance(value, list):
        _validate_list(schema, value, path, errors)
    elif isinstance(value, dict):
        _validate_object(schema, value, path, errors)
    _validate_combinations(schema, value, path, errors)


def _check_type(schema: Obj, value: Any, path: str, errors: list[FieldError]) -> bool:
    type_ = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, str) or _has_type(value, "integer"):
            return True
        type_ = "integer,string"
    if not type_ or (type_ != "integer,string" and _has_type(value, type_)):
        return True
    found = _TYPE_NAMES[type(value)]
    detail = f'{path} in body must be of type {type_}: "{found}"'
    errors.append(FieldError(TYPE_INVALID, path, found, detail))
    return False


def _validate_string(schema: Obj, value: str, path: str, errors: list[FieldError]) -> None:
    longest, shortest = schema.get("maxLength"), schema.get("minLength")
    if longest is not None and len(value) > longest:
        errors.append(FieldError(TOO_LONG, path, value, f"may not be more than {longest} bytes"))
    if shortest is not None and len(value) < shortest:
        detail = f"{path} in body should be at least {shortest} chars long"
        errors.append(invalid_value(path, value, detail))
    pattern = schema.get("pattern")
    if pattern is not None and not matches(pattern, value):
        errors.append(invalid_value(path, value, f"{path} in body should match '{pattern}'"))
    check = _FORMATS.get(schema.get("format", ""))
    if check is not None and not check(value):
        detail = f'{path} in body must be of type {schema["format"]}: "{value}"'
        errors.append(invalid_value(path, value, detail))


def _is_date_time(text: str) -> bool:
    try:
        meta.parse_time(text)
    except ValueError:
        return False
    return True


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


_UUID = re.compile(
    r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}"
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_FORMATS: dict[str, Any] = {
    "date-time": _is_date_time,
    "date": lambda t: re.fullmatch(r"\d{4}-\d\d-\d\d", t) is not None,
    "byte": _is_base64,
    "ipv4": lambda t: _is_ip(t, 4),
    "ipv6": lambda t: _is_ip(t, 6),
    "uuid": lambda t: _UUID.fullmatch(t) is not None,
    "email": lambda t: _EMAIL.fullmatch(t) is not None,
}


def _validate_number(schema: Obj, value: float, path: str, errors: list[FieldError]) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is not None:
        strict = schema.get("exclusiveMaximum")
        if value > high or (strict and value == high):
            text = "less than" if strict else "less than or equal to"
            errors.append(invalid_value(path, value, f"{path} in body should be {text} {high}"))
    if low is not None:
        strict = schema.get("exclusiveMinimum")
        if value < low or (strict and value == low):
            text = "greater than" if strict else "greater than or equal to"
            errors.append(invalid_value(path, value, f"{path} in body should be {text} {low}"))
    step = schema.get("multipleOf")
    if step and value % step:
        errors.append(invalid_value(path, value, f"{path} in body should be a multiple of {step}"))


def _validate_list(schema: Obj, value: list[Any], path: str, errors: list[FieldError]) -> None:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        errors.append(too_many(path, len(value), most))
    if least is not None and len(value) < least:
        detail = f"{path} in body should have at least {least} items"
        errors.append(invalid_value(path, len(value), detail))
    if schema.get("uniqueItems") and any(v in value[:i] for i, v in enumerate(value)):
        errors.append(invalid_value(path, value, f"{path} in body shouldn't contain duplicates"))
    _validate_list_type(schema, value, path, errors)
    items = schema.get("items")
    if isinstance(items, dict):
        for i, item in enumerate(value):
            _validate(items, item, f"{path}[{i}]", errors)


def _validate_list_type(schema: Obj, value: list[Any], path: str, errors: list[FieldError]) -> None:
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "set":
        for i, item in enumerate(value):
            if item in value[:i]:
                errors.append(duplicate(f"{path}[{i}]", item))
    elif list_type == "map":
        seen: list[Obj] = []
        for i, item in enumerate(value):
            keys = schema.get("x-kubernetes-list-map-keys") or ()
            key = {k: item.get(k) for k in keys} if isinstance(item, dict) else {}
            if key in seen:
                errors.append(duplicate(f"{path}[{i}]", key))
            seen.append(key)


def _validate_object(schema: Obj, value: Obj, path: str, errors: list[FieldError]) -> None:
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        errors.append(too_many(path, len(value), most))
    if least is not None and len(value) < least:
        detail = f"{path} in body should have at least {least} properties"
        errors.append(invalid_value(path, len(value), detail))
    for name in schema.get("required") or ():
        if name not in value:
            errors.append(required(f"{path}.{name}" if path else name))
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for name, item in value.items():
        below = f"{path}.{name}" if path else name
        if name in properties:
            _validate(properties[name], item, below, errors)
        elif isinstance(extra, dict):
            _validate(extra, item, below, errors)


def _valid(schema: Obj, value: Any, path: str) -> bool:
    found: list[FieldError] = []
    _validate(schema, value, path, found)
    return not found


def _validate_combinations(schema: Obj, value: Any, path: str, errors: list[FieldError]) -> None:
    shown = f'"{path}"'
    for inner in schema.get("allOf") or ():
        _validate(inner, value, path, errors)
    if schema.get("anyOf") and not any(_valid(s, value, path) for s in schema["anyOf"]):
        detail = f"{shown} must validate at least one schema (anyOf)"
        errors.append(invalid_value(path, value, detail))
    if schema.get("oneOf"):
        count = sum(_valid(s, value, path) for s in schema["oneOf"])
        if count != 1:
            found = "none valid" if count == 0 else f"{count} valid alternatives"
            detail = f"{shown} must validate one and only one schema (oneOf). Found {found}"
            errors.append(invalid_value(path, value, detail))
    if schema.get("not") is not None and _valid(schema["not"], value, path):
        detail = f"{shown} must not validate the schema (not)"
        errors.append(invalid_value(path, value, detail))
