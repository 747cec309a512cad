"""The query parameters of requests, read and checked as kube-apiserver does. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

import orjson

from k8slite.api.kinds import Kind
from k8slite.api.selectors import (
    ALL_FIELDS,
    EVERYTHING,
    FieldSelector,
    LabelSelector,
    fields_or_400,
    labels_or_400,
)
from k8slite.api.status import (
    FieldError,
    bad_request,
    forbidden_field,
    invalid_kind,
    not_supported,
    plain_internal,
)
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Request
from k8slite.apiserver.watch_cache import Entry

__all__ = [
    "ListOptions",
    "Selection",
    "check_write_options",
    "decode_continue",
    "encode_continue",
    "is_dry_run",
    "list_options",
]

NOT_OLDER_THAN = "NotOlderThan"
EXACT = "Exact"
_GROUP = "meta.k8s.io"
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DIGITS_MAX = 20
_SHOWN_MAX = 64


class Selection(NamedTuple):
    """Label and field selector of a request, as a Filter of entries.

    `converts`: the kind, where fields differ between its versions; then entries must have been
    prepared (`versions.prepare`).
    """

    labels: LabelSelector
    fields: FieldSelector
    converts: Kind | None = None

    @property
    def empty(self) -> bool:
        """Does it select everything?"""
        return self.labels.empty and self.fields.empty

    def matches(self, entry: Entry) -> bool:
        """Does it select this object?"""
        obj = entry.parsed()
        if self.converts is not None and self.converts.version in entry.converted:
            obj = entry.converted[self.converts.version][1]
        if not self.labels.empty and not self.labels.matches(obj["metadata"].get("labels")):
            return False
        return self.fields.empty or self.fields.matches(obj)


class ListOptions(NamedTuple):
    """Of list, watch and deletecollection. `resource_version` None: not given."""

    selection: Selection
    resource_version: int | None
    match: str
    limit: int
    continue_: str
    timeout_seconds: int | None
    bookmarks: bool
    send_initial_events: bool | None


DEFAULTS = ListOptions(
    Selection(EVERYTHING, ALL_FIELDS),
    None,
    "",
    0,
    "",
    None,
    bookmarks=False,
    send_initial_events=None,
)
"""Of a request without parameters."""


def list_options(call: Call, kind: Kind, *, watch: bool = False) -> ListOptions:
    """Raises ApiError 400, 422 or (for a watch from a version that is none) 500."""
    if not call.request.query_string:
        return DEFAULTS
    param = call.param
    fields = fields_or_400(kind, param("fieldSelector"))
    differs = kind.stored_as and any(term.path in kind.selectable for term in fields.terms)
    limit = _integer(param("limit"))
    timeout = _integer(param("timeoutSeconds"))
    options = ListOptions(
        Selection(labels_or_400(param("labelSelector")), fields, kind if differs else None),
        _resource_version(param("resourceVersion"), watch=watch),
        param("resourceVersionMatch"),
        max(limit or 0, 0),
        param("continue"),
        timeout,
        _boolean(call.request, "allowWatchBookmarks") or False,
        _boolean(call.request, "sendInitialEvents"),
    )
    problems = _check(options, param("resourceVersion"), watch=watch)
    if problems:
        raise invalid_kind("ListOptions", _GROUP, "", problems)
    return options


def _check(options: ListOptions, version: str, *, watch: bool) -> list[FieldError]:
    field, match = "resourceVersionMatch", options.match
    problems: list[FieldError] = []
    if options.send_initial_events is not None:
        if not match:
            problems.append(
                forbidden_field(field, f"{field} is required when sendInitialEvents is provided")
            )
        elif match != NOT_OLDER_THAN:
            problems.append(not_supported(field, match, [NOT_OLDER_THAN]))
        if not watch:
            problems.append(
                forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list")
            )
        return problems
    if not match:
        return problems
    if watch:
        return [forbidden_field(field, f"{field} is forbidden for watch")]
    if not version:
        problems.append(
            forbidden_field(field, f"{field} is forbidden unless resourceVersion is provided")
        )
    if options.continue_:
        problems.append(forbidden_field(field, f"{field} is forbidden when continue is provided"))
    if match not in (EXACT, NOT_OLDER_THAN):
        problems.append(not_supported(field, match, [EXACT, NOT_OLDER_THAN, ""]))
    elif match == EXACT and version == "0":
        problems.append(
            forbidden_field(field, f'{field} "Exact" is forbidden for resourceVersion "0"')
        )
    return problems


def _integer(text: str) -> int | None:
    if not text:
        return None
    if _INTEGER.fullmatch(text) is None:
        raise bad_request(f'strconv.ParseInt: parsing "{_shown(text)}": invalid syntax')
    if len(text) > _DIGITS_MAX or not -(2**63) <= int(text) < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{_shown(text)}": value out of range')
    return int(text)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def _boolean(request: Request, name: str) -> bool | None:
    values = request.query.get(name)
    if values is None:
        return None
    return values[0].lower() not in ("false", "0")


def _resource_version(text: str, *, watch: bool) -> int | None:
    if not text:
        return None
    why = "invalid syntax"
    if text.isascii() and text.isdigit():
        if len(text) <= _DIGITS_MAX and int(text) < 2**64:
            return int(text)
        why = "value out of range"
    message = (
        f'resourceVersion: Invalid value: "{_shown(text)}": '
        f'strconv.ParseUint: parsing "{_shown(text)}": {why}'
    )
    if watch:
        raise plain_internal(message)
    raise bad_request(f"invalid resource version: {message}")


def encode_continue(revision: int, start: str) -> str:
    """An opaque token: list on from key `start`, as of `revision`."""
    token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start})
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def decode_continue(text: str) -> tuple[int, str]:
    """(revision, start). Raises ApiError 400."""
    try:
        token = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        revision, start = token["rv"], token["start"]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise bad_request(
            "continue key is not valid: encoded continue token is malformed"
        ) from None
    if type(revision) is not int or not 0 <= revision < 2**63 or not isinstance(start, str):
        raise bad_request("continue key is not valid: encoded continue token is malformed")
    return revision, start


_OPTIONS_KIND = {
    "create": "CreateOptions",
    "update": "UpdateOptions",
    "patch": "PatchOptions",
    "delete": "DeleteOptions",
    "deletecollection": "DeleteOptions",
}
_FIELD_VALIDATION = ("", "Ignore", "Strict", "Warn")


def check_write_options(call: Call) -> None:
    """Check dryRun, fieldValidation and fieldManager. Raises ApiError 422."""
    query = call.request.query
    if not query:
        return
    problems: list[FieldError] = []
    dry_run = query.get("dryRun", [])
    if any(value != "All" for value in dry_run if value):
        problems.append(not_supported("dryRun", dry_run, ["All"]))
    validation = call.param("fieldValidation")
    if validation not in _FIELD_VALIDATION:
        problems.append(not_supported("fieldValidation", validation, _FIELD_VALIDATION))
    if problems:
        raise invalid_kind(_OPTIONS_KIND[call.info.verb], _GROUP, "", problems)


def is_dry_run(call: Call) -> bool:
    """Is nothing to be stored?"""
    return "All" in call.request.query.get("dryRun", ())
