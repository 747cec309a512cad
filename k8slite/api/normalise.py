"""A decoded body becomes an object as kube-apiserver would hold it.

One walk along the type: wrong types are refused in the words of Go's JSON decoder; unknown fields
are pruned and reported; nulls, empty lists and maps, and zeros that Go omits vanish; quantities and
times take their canonical form. Nothing is defaulted here, nothing validated.
"""

from __future__ import annotations

import binascii
import re
from typing import Any

from k8slite.api import quantity
from k8slite.api.meta import Obj, format_micro_time, format_time, parse_time
from k8slite.api.schema import Field, Type

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_RFC3339 = "2006-01-02T15:04:05Z07:00"
_RFC3339_MICRO = "2006-01-02T15:04:05.000000Z07:00"
_CANONICAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_CANONICAL_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class WrongType(ValueError):
    """A value that Go could not decode. Its text grows outward from the leaf: see `go_path`."""

    def __init__(self, what: str, go_type: str) -> None:
        super().__init__(what)
        self.what = what
        self.go_type = go_type
        self.struct = ""
        self.path: list[str] = []

    def enter(self, field: Field) -> None:
        """The error passes through this field on its way out."""
        if not self.struct:
            self.struct = field.owner.go_name
        self.path[:0] = (*field.embedded, field.name)

    def __str__(self) -> str:
        where = f"Go struct field {self.struct}.{'.'.join(self.path)}"
        return f"json: cannot unmarshal {self.what} into {where} of type {self.go_type}"


class BadValue(ValueError):
    """A value whose own decoder refused it: a quantity, a time, base64. The message is complete."""


def normalise(type_: Type, value: Obj, unknown: list[str] | None = None) -> Obj:
    """The object as kube-apiserver holds it; the paths of unknown fields are added to `unknown`.

    Raises WrongType or BadValue. The input may be reused in the output and must not be used again.
    """
    return _struct(type_, value, "", unknown)


def _struct(type_: Type, value: Obj, path: str, unknown: list[str] | None) -> Obj:
    fields = type_.fields
    out: Obj = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            if unknown is not None:
                unknown.append(f"{path}.{name}" if path else name)
            continue
        if item is None:
            continue
        shape = field.shape
        try:
            if not shape:
                code = field.code
                if code == "s":
                    if type(item) is not str:
                        raise WrongType(_describe(item), "string")
                    if item or field.keeps_zero:
                        out[name] = item
                elif code == "@":
                    if type(item) is not dict:
                        raise WrongType(_describe(item), field.go_type)
                    below = f"{path}.{name}" if path else name
                    out[name] = _struct(field.type, item, below, unknown)
                else:
                    item = _SCALARS[code](item)
                    if item or field.keeps_zero or code in "xqa":
                        out[name] = item
            else:
                below = f"{path}.{name}" if path else name
                item = _container(field, shape, item, below, unknown)
                if item:
                    out[name] = item
        except WrongType as error:
            error.enter(field)
            raise
    for name, zero in type_.zeros:
        out.setdefault(name, zero)
    return out


def _container(
    field: Field, shape: str, value: Any, path: str, unknown: list[str] | None
) -> list[Any] | dict[str, Any]:
    """`value` as a list or map of the field's elements; `shape` is what remains of its nesting."""
    inner = shape[1:]
    if shape[0] == "[":
        if type(value) is not list:
            raise WrongType(_describe(value), _go_type(field, shape))
        if not inner and field.code == "s":
            for item in value:
                if type(item) is not str:
                    if item is None:
                        return ["" if i is None else _string(i) for i in value]
                    raise WrongType(_describe(item), "string")
            return value
        return [
            _element(field, inner, item, f"{path}[{i}]", unknown) for i, item in enumerate(value)
        ]
    if type(value) is not dict:
        raise WrongType(_describe(value), _go_type(field, shape))
    return {k: _element(field, inner, v, f"{path}.{k}", unknown) for k, v in value.items()}


def _element(field: Field, inner: str, item: Any, path: str, unknown: list[str] | None) -> Any:
    if inner:
        return [] if item is None else _container(field, inner, item, path, unknown)
    if field.code == "@":
        if item is None:
            return {}
        if type(item) is not dict:
            raise WrongType(_describe(item), f"{field.type.version}.{field.type.go_name}")
        return _struct(field.type, item, path, unknown)
    if item is None:
        return "" if field.code in "sB" else None
    return _SCALARS[field.code](item)


def _go_type(field: Field, shape: str) -> str:
    return field.go_type[len(field.go_type) - _go_type_length(field, shape) :]


def _go_type_length(field: Field, shape: str) -> int:
    dropped = field.shape[: len(field.shape) - len(shape)]
    return len(field.go_type) - sum(2 if c == "[" else len("map[string]") for c in dropped)


def _describe(value: Any) -> str:
    """What Go calls this JSON value: "string", "number", "bool", "array", "object"."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    if isinstance(value, dict):
        return "object"
    return "number"


def _string(value: Any) -> str:
    if type(value) is not str:
        raise WrongType(_describe(value), "string")
    return value


def _int32(value: Any) -> int:
    if type(value) is int and value in _INT32:
        return value
    raise WrongType(_describe_number(value), "int32")


def _int64(value: Any) -> int:
    if type(value) is int and value in _INT64:
        return value
    raise WrongType(_describe_number(value), "int64")


def _describe_number(value: Any) -> str:
    kind = _describe(value)
    return f"number {value!r}" if kind == "number" else kind


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise WrongType(_describe(value), "bool")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise WrongType(_describe(value), "float64")
    return value  # type: ignore[no-any-return]  # an int or a float, as written


def _bytes(value: Any) -> str:
    if type(value) is not str:
        raise WrongType(_describe(value), "[]uint8")
    text = value.replace("\r", "").replace("\n", "")
    try:
        return binascii.b2a_base64(
            binascii.a2b_base64(text, strict_mode=True), newline=False
        ).decode()
    except binascii.Error:
        raise BadValue(f"illegal base64 data at input byte {_bad_byte(text)}") from None


def _bad_byte(text: str) -> int:
    """Where Go's decoder stops: the first foreign character, or the start of what is missing."""
    match = re.search(r"[^A-Za-z0-9+/]", text)
    if match is None:
        return len(text) // 4 * 4 if len(text) % 4 == 0 else len(text) - len(text) % 4
    at = match.start()
    if text[at] == "=" and at % 4 >= 2:
        end = at + 1 if at % 4 == 3 else at + 2
        return min(end, len(text))
    return at


def _go_value(value: Any, go_type: str) -> BadValue:
    return BadValue(f"json: cannot unmarshal {_describe(value)} into Go value of type {go_type}")


def _time(value: Any) -> str | None:
    if type(value) is not str:
        raise _go_value(value, "string")
    if _CANONICAL_TIME.fullmatch(value):
        _parse(value, _RFC3339)
        return None if value == "0001-01-01T00:00:00Z" else value
    return format_time(_parse(value, _RFC3339))


def _micro_time(value: Any) -> str | None:
    if type(value) is not str:
        raise _go_value(value, "string")
    if _CANONICAL_MICRO.fullmatch(value):
        _parse(value, _RFC3339_MICRO)
        return value
    seconds = _parse(value, _RFC3339_MICRO)
    if "." not in value:
        rest = value[19:]
        raise BadValue(
            f'parsing time "{value}" as "{_RFC3339_MICRO}": cannot parse "{rest}" as ".000000"'
        )
    return format_micro_time(seconds)


_LAYOUT = (
    (r"\d{4}", "2006"),
    ("-", "-"),
    (r"\d\d", "01"),
    ("-", "-"),
    (r"\d\d", "02"),
    ("T", "T"),
    (r"\d\d", "15"),
    (":", ":"),
    (r"\d\d", "04"),
    (":", ":"),
    (r"\d\d", "05"),
)


def _parse(text: str, layout: str) -> float:
    try:
        return parse_time(text)
    except ValueError:
        pass
    at = 0
    for pattern, part in _LAYOUT:
        match = re.compile(pattern).match(text, at)
        if match is None:
            raise BadValue(
                f'parsing time "{text}" as "{layout}": cannot parse "{text[at:]}" as "{part}"'
            )
        at = match.end()
    ranges = (
        (5, 12, "month"),
        (8, 31, "day"),
        (11, 23, "hour"),
        (14, 59, "minute"),
        (17, 59, "second"),
    )
    for start, maximum, name in ranges:
        if int(text[start : start + 2]) > maximum:
            raise BadValue(f'parsing time "{text}": {name} out of range')
    rest = text[at:]
    if not re.match(r"(\.\d+)?(Z|[+-]\d\d:\d\d)", rest):
        raise BadValue(f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "Z07:00"')
    raise BadValue(f'parsing time "{text}": day out of range')


def _quantity(value: Any) -> str:
    text = value if type(value) is str else _literal(value)
    try:
        return quantity.canonical(text)
    except quantity.QuantityError as error:
        raise BadValue(str(error)) from None


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else str(type(value))


def _int_or_string(value: Any) -> int | str:
    if type(value) is str:
        return value
    if type(value) is int and value in _INT32:
        return value
    what = _describe_number(value)
    raise BadValue(f"json: cannot unmarshal {what} into Go value of type int32")


def _any(value: Any) -> Any:
    return value


_SCALARS = {
    "s": _string,
    "i": _int32,
    "l": _int64,
    "b": _bool,
    "n": _number,
    "B": _bytes,
    "t": _time,
    "u": _micro_time,
    "q": _quantity,
    "x": _int_or_string,
    "a": _any,
}
