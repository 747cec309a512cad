"""Failures as the API tells them: the Status object, its reasons and codes, and the exact texts of
kube-apiserver.

`ApiError` is raised by the server's handlers and by the client alike, so that a controller tested
in one process and one behind a network see the same thing. `FieldError` is one refused field;
`invalid` gathers them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj

REQUIRED = "Required value"
INVALID = "Invalid value"
NOT_SUPPORTED = "Unsupported value"
FORBIDDEN = "Forbidden"
DUPLICATE = "Duplicate value"
NOT_FOUND = "Not found"
TOO_LONG = "Too long"
TOO_MANY = "Too many"
INTERNAL = "Internal error"
TYPE_INVALID = "TypeInvalid"

_CAUSE_REASONS = {
    REQUIRED: "FieldValueRequired",
    INVALID: "FieldValueInvalid",
    NOT_SUPPORTED: "FieldValueNotSupported",
    FORBIDDEN: "FieldValueForbidden",
    DUPLICATE: "FieldValueDuplicate",
    NOT_FOUND: "FieldValueNotFound",
    TOO_LONG: "FieldValueTooLong",
    TOO_MANY: "FieldValueTooMany",
    INTERNAL: "InternalError",
    TYPE_INVALID: "FieldValueTypeInvalid",
}
OMITTED = object()
"""A bad value that is not to be shown."""
NULL = object()
"""A bad value that is an empty map or list of Go: shown as null without quotes."""
_WITHOUT_VALUE = frozenset((REQUIRED, FORBIDDEN, TOO_LONG, INTERNAL))


class FieldError(NamedTuple):
    """One refused field. `type` is one of the constants above; `field` a path as
    "spec.ports[0].name".
    """

    type: str
    field: str
    bad_value: Any = ""
    detail: str = ""

    def body(self) -> str:
        """The message without the field: `Invalid value: 70000: must be between 1 and 65535,
        inclusive`.
        """
        label = INVALID if self.type is TYPE_INVALID else self.type
        hidden = self.type in _WITHOUT_VALUE or self.bad_value is OMITTED
        text = label if hidden else f"{label}: {_show(self.bad_value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def message(self) -> str:
        return f"{self.field}: {self.body()}"

    def cause(self) -> Obj:
        return {"reason": _CAUSE_REASONS[self.type], "message": self.body(), "field": self.field}


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(REQUIRED, field, "", detail)


def invalid_value(field: str, value: Any, detail: str = "") -> FieldError:
    return FieldError(INVALID, field, value, detail)


def forbidden_field(field: str, detail: str = "") -> FieldError:
    return FieldError(FORBIDDEN, field, "", detail)


def duplicate(field: str, value: Any, detail: str = "") -> FieldError:
    return FieldError(DUPLICATE, field, value, detail)


def not_found_value(field: str, value: Any, detail: str = "") -> FieldError:
    return FieldError(NOT_FOUND, field, value, detail)


def too_long(field: str, maximum: int) -> FieldError:
    return FieldError(TOO_LONG, field, "", f"may not be more than {maximum} bytes")


def too_many(field: str, actual: int, maximum: int) -> FieldError:
    things = "item" if maximum == 1 else "items"
    return FieldError(TOO_MANY, field, actual, f"must have at most {maximum} {things}")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    """The supported values are shown in the order given; kube-apiserver sorts most of its sets."""
    quoted = ", ".join(quote(s) for s in supported)
    return FieldError(NOT_SUPPORTED, field, value, f"supported values: {quoted}" if quoted else "")


def quote(text: str) -> str:
    """As Go's %q: double quotes, escapes; printable characters stay as they are."""
    return orjson.dumps(text).decode()


def _show(value: Any) -> str:
    if value is None:
        return '"null"'
    if value is NULL:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return str(value)
    return orjson.dumps(value).decode()


class ApiError(Exception):
    """An answer that is no success. `code` is HTTP's, `reason` the API's; `retry_after` seconds or
    None.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Obj | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"ApiError({self.code}, {self.reason!r}, {self.message!r})"

    def to_status(self) -> Obj:
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        details = self.details
        if self.retry_after is not None:
            details = {**(details or {}), "retryAfterSeconds": self.retry_after}
        if details is not None:
            status["details"] = details
        status["code"] = self.code
        return status


def from_status(status: Obj, code: int = 0) -> ApiError:
    """The error that a Status object tells; `code` (HTTP's) is taken where it names none."""
    details = status.get("details")
    return ApiError(
        status.get("code") or code or 500,
        status.get("reason", ""),
        status.get("message", ""),
        details,
        (details or {}).get("retryAfterSeconds"),
    )


def success(details: Obj | None = None) -> Obj:
    """The Status that answers a deletion."""
    status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details is not None:
        status["details"] = details
    return status


def _resource_details(kind: Kind | None, name: str) -> Obj:
    details: Obj = {}
    if name:
        details["name"] = name
    if kind is not None:
        if kind.group:
            details["group"] = kind.group
        details["kind"] = kind.plural
    return details


def not_found(kind: Kind, name: str) -> ApiError:
    message = f"{kind.resource} {quote(name)} not found"
    return ApiError(404, "NotFound", message, _resource_details(kind, name))


def resource_not_found() -> ApiError:
    """A path below a served group that names no resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f"{kind.resource} {quote(name)} already exists"
    return ApiError(409, "AlreadyExists", message, _resource_details(kind, name))


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(kind: Kind, name: str, message: str = MODIFIED, *, subresource: str = "") -> ApiError:
    """409. `subresource` makes "pods/binding" of the resource's name, as kube-apiserver does for
    some.
    """
    resource, details = kind.resource, _resource_details(kind, name)
    if subresource:
        resource = f"{kind.plural}/{subresource}" + (f".{kind.group}" if kind.group else "")
        details["kind"] = f"{kind.plural}/{subresource}"
    text = f"Operation cannot be fulfilled on {resource} {quote(name)}: {message}"
    return ApiError(409, "Conflict", text, details)


def apply_conflict(causes: Sequence[tuple[str, str]]) -> ApiError:
    """Server-side apply: (manager text as `"one"` or `"one" using v1`, field path) of each
    conflict.
    """
    rows = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
        for manager, path in causes
    ]
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: conflict with {causes[0][0]}: {causes[0][1]}"
    else:
        groups: dict[str, list[str]] = {}
        for manager, path in causes:
            groups.setdefault(manager, []).append(path)
        lines = [
            line
            for manager, paths in groups.items()
            for line in (f"conflicts with {manager}:", *(f"- {p}" for p in paths))
        ]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", text, {"causes": rows})


def invalid(kind: Kind, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 with a cause for each refused field."""
    return invalid_kind(kind.kind, kind.group, name, errors)


def invalid_kind(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """As `invalid`, for what is no resource: ("CreateOptions", "meta.k8s.io", "") and the like."""
    qualified = f"{kind}.{group}" if group else kind
    messages = list(dict.fromkeys(e.message() for e in errors))
    text = messages[0] if len(messages) == 1 else f"[{', '.join(messages)}]"
    details: Obj = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    if errors:
        details["causes"] = [e.cause() for e in errors]
    message = f"{qualified} {quote(name)} is invalid" + (f": {text}" if errors else "")
    return ApiError(422, "Invalid", message, details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def forbidden(kind: Kind | None, name: str, message: str) -> ApiError:
    """403: `pods "x" is forbidden: MESSAGE`; without a name `pods is forbidden: MESSAGE`."""
    if kind is None:
        return ApiError(403, "Forbidden", f"forbidden: {message}", {})
    text = f"{kind.resource} {quote(name)}" if name else kind.resource
    return ApiError(
        403, "Forbidden", f"{text} is forbidden: {message}", _resource_details(kind, name)
    )


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str = "The resourceVersion for the provided list is too old.") -> ApiError:
    """410 Expired: list again from now."""
    return ApiError(410, "Expired", message)


def gone(message: str) -> ApiError:
    return ApiError(410, "Gone", message)


def too_old_resource_version(requested: int, oldest: int) -> ApiError:
    return expired(f"too old resource version: {requested} ({oldest})")


def too_large_resource_version(requested: int, current: int) -> ApiError:
    """504 with the cause that client-go's reflector looks for."""
    message = f"Too large resource version: {requested}, current: {current}"
    return ApiError(
        504,
        "Timeout",
        f"Timeout: {message}",
        {
            "causes": [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ],
            "retryAfterSeconds": 1,
        },
        1,
    )


def method_not_supported() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def too_many_requests(message: str, retry_after: int = 1, causes: Sequence[Obj] = ()) -> ApiError:
    details = {"causes": list(causes)} if causes else None
    return ApiError(429, "TooManyRequests", message, details, retry_after)


def internal(message: str) -> ApiError:
    cause = {"causes": [{"message": message}]}
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", cause)


def plain_internal(message: str) -> ApiError:
    """500 without a reason: what kube-apiserver makes of an error it has no type for."""
    return ApiError(500, "", message)


def service_unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def timeout(message: str, retry_after: int = 0) -> ApiError:
    return ApiError(504, "Timeout", f"Timeout: {message}", None, retry_after)


def unsupported_media_type() -> ApiError:
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def unsupported_patch_type(accepted: Sequence[str]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    message = "only the following media types are accepted: " + ", ".join(accepted)
    return ApiError(406, "NotAcceptable", message)


def rejected_patch() -> ApiError:
    """422 of a JSON patch whose test failed or whose path is not there."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, {})
