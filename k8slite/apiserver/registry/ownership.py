"""Who owns which field: managedFields on every write, and server-side apply.

The rules are `k8slite.api.apply`'s. Here is when they are asked, and in whose name: the manager is
the fieldManager parameter, or else the client's program.
"""

from __future__ import annotations

from k8slite.api import yaml_codec
from k8slite.api.apply import server_side_apply, track_update
from k8slite.api.codec import IGNORE, from_parsed
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy, format_time
from k8slite.api.status import bad_request, forbidden_field, invalid_kind, required
from k8slite.apiserver.call import Call
from k8slite.apiserver.kind_table import is_custom

__all__ = [
    "APPLY_PATCH",
    "Configuration",
    "check_apply_options",
    "manager_of",
    "track",
    "track_answer",
]

APPLY_PATCH = "application/apply-patch+yaml"
MANAGER_BYTES_MAX = 128
_UNKNOWN = "unknown"


def manager_of(call: Call) -> str:
    """In whose name fields are written."""
    given = call.param("fieldManager")
    if given:
        return given
    program = call.request.header(b"user-agent").partition("/")[0]
    printable = "".join(c for c in program if c.isprintable())
    return printable[:MANAGER_BYTES_MAX] or _UNKNOWN


def _schema(call: Call) -> Obj | None:
    custom = call.core.kinds.custom(call.kind) if is_custom(call.kind) else None
    return None if custom is None else custom.schema


def track(call: Call, new: Obj, old: Obj | None, subresource: str) -> None:
    """Note in `new` who owns what, after a create, update or patch made it of `old`.

    An object whose fields nobody owns is left so: it was made by the server itself.
    """
    if not call.core.config.track_field_owners:
        return
    if old is not None and not old["metadata"].get("managedFields"):
        return
    if subresource == "scale" and old is not None and not _owned(old, "f:spec", "f:replicas"):
        return
    now = format_time(call.core.now())
    schema = _schema(call)
    track_update(call.kind, old, new, manager_of(call), now, subresource=subresource, schema=schema)
    entries: list[Obj] = new["metadata"].get("managedFields") or []
    for entry in entries:
        if entry.get("subresource") == "scale" or not entry.get("time"):
            entry.pop("time", None)
    entries.sort(key=lambda e: (e["operation"], e.get("time", ""), e["manager"]))


def track_answer(call: Call, obj: Obj, subresource: str = "") -> None:
    """The same for what is answered and never stored: a review, a token."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = Kind(group=group, version=version, kind=obj["kind"], plural=call.kind.plural)
    manager, now = manager_of(call), format_time(call.core.now())
    track_update(kind, None, obj, manager, now, subresource=subresource)


def _owned(obj: Obj, *path: str) -> bool:
    """Does anybody own this field?"""
    for entry in obj["metadata"]["managedFields"]:
        fields: Obj | None = entry.get("fieldsV1")
        for element in path:
            fields = None if fields is None else fields.get(element)
        if fields is not None:
            return True
    return False


def check_apply_options(call: Call, *, apply: bool) -> None:
    """Raises ApiError 422 where fieldManager is missing or force has no meaning."""
    problems = []
    if apply and not call.param("fieldManager"):
        problems.append(required("fieldManager", "is required for apply patch"))
    if not apply and "force" in call.request.query:
        problems.append(forbidden_field("force", "may not be specified for non-apply patch"))
    if problems:
        raise invalid_kind("PatchOptions", "meta.k8s.io", "", problems)


class Configuration:
    """The body of an apply: what one manager wants, and nothing else."""

    def __init__(self, call: Call, level: str) -> None:
        """Raises ApiError 400."""
        try:
            raw = yaml_codec.load(call.request.body)
        except yaml_codec.YamlError as error:
            raise bad_request(f"error decoding YAML: {error}") from None
        if not isinstance(raw, dict):
            raise bad_request("error decoding YAML: the body of an apply must be an object")
        metadata = raw.get("metadata")
        if isinstance(metadata, dict) and "managedFields" in metadata:
            raise bad_request("metadata.managedFields must be nil")
        decoded = from_parsed(copy(raw), call.kind, level)
        if level != IGNORE:
            for warning in decoded.warnings:
                call.warn(warning)
        self.obj = decoded.obj
        # Empty maps and lists mean something here: who applies them owns them. So it is the body
        # as it came that is merged, and the outcome is normalised.
        identity = {key: decoded.obj[key] for key in ("apiVersion", "kind")}
        metadata = {**(raw.get("metadata") or {}), "name": call.info.name}
        self._raw = {**raw, **identity, "metadata": metadata}
        self._call = call

    def apply_to(self, live: Obj | None, subresource: str = "") -> Obj:
        """The object after the apply. Raises ApiError 409 for conflicts."""
        call = self._call
        merged = server_side_apply(
            call.kind,
            live,
            copy(self._raw),
            manager_of(call),
            format_time(call.core.now()),
            force=call.param("force").lower() in ("true", "1"),
            subresource=subresource,
            schema=_schema(call),
        )
        return from_parsed(merged, call.kind, IGNORE).obj
