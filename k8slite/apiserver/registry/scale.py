"""scale: the replicas of a workload behind one common shape (autoscaling/v1 Scale)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from k8slite.api.codec import SCALE, decode, from_parsed, media_type
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.selectors import SelectorError, from_object
from k8slite.api.status import bad_request, invalid_kind, invalid_value
from k8slite.apiserver.admission.chain import admit_part
from k8slite.apiserver.call import Call
from k8slite.apiserver.forms import negotiate, read
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.kind_table import is_custom
from k8slite.apiserver.options import check_write_options
from k8slite.apiserver.registry import writes
from k8slite.apiserver.registry.patches import apply_patch
from k8slite.apiserver.registry.reads import find
from k8slite.apiserver.versions import prepare

__all__ = ["get_scale", "patch_scale", "put_scale"]

SCALE_KIND = Kind(group="autoscaling", version="v1", kind="Scale", plural="scales")
_PLAIN_SELECTOR = "replicationcontrollers"
_COPIED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


class _Paths(NamedTuple):
    """Where a workload keeps what a Scale shows (dotted paths)."""

    wanted: str = ".spec.replicas"
    seen: str = ".status.replicas"
    selector: str = ""


_BUILT_IN = _Paths()


def _paths(call: Call) -> _Paths:
    custom = call.core.kinds.custom(call.kind) if is_custom(call.kind) else None
    if custom is None or custom.scale is None:
        return _BUILT_IN
    scale = custom.scale
    return _Paths(
        scale["specReplicasPath"],
        scale["statusReplicasPath"],
        scale.get("labelSelectorPath", ""),
    )


def _find(obj: Obj, path: str) -> Any:
    value: Any = obj
    for name in path.strip(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _selector(kind: Kind, obj: Obj, paths: _Paths) -> str:
    """The selector as text."""
    if paths.selector:
        return str(_find(obj, paths.selector) or "")
    chosen = (obj.get("spec") or {}).get("selector")
    if kind.resource == _PLAIN_SELECTOR:
        return ",".join(f"{k}={v}" for k, v in sorted((chosen or {}).items()))
    try:
        return "" if chosen is None else str(from_object(chosen))
    except SelectorError:
        return ""


def to_scale(kind: Kind, obj: Obj, paths: _Paths = _BUILT_IN) -> Obj:
    """The Scale of a workload."""
    replicas = _find(obj, paths.wanted)
    status: Obj = {"replicas": _find(obj, paths.seen) or 0}
    text = _selector(kind, obj, paths)
    if text:
        status["selector"] = text
    metadata = obj["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _COPIED if key in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _answer(call: Call, obj: Obj) -> Response:
    form = negotiate(call)
    scale = to_scale(call.kind, obj, _paths(call))
    return form.response(200, form.value(SCALE_KIND, scale, call.core.now()))


async def get_scale(call: Call) -> Response:
    """GET .../scale"""
    entry = await find(call)
    await prepare(call.core, call.kind, (entry,))
    return _answer(call, read(call.kind, entry))


async def put_scale(call: Call) -> Response:
    """PUT .../scale"""
    check_write_options(call)
    given = decode(call.request.body, call.request.header(b"content-type"), SCALE).obj
    return await _change(call, lambda scale: given)


async def patch_scale(call: Call) -> Response:
    """PATCH .../scale"""
    check_write_options(call)
    media = media_type(call.request.header(b"content-type"))
    apply = apply_patch(SCALE_KIND, media, call.request.body)

    def transform(scale: Obj) -> Obj:
        patched = apply(scale)
        return from_parsed(patched, SCALE, body=orjson.dumps(patched)).obj

    return await _change(call, transform)


async def _change(call: Call, transform: Callable[[Obj], Obj]) -> Response:
    kind, paths = call.kind, _paths(call)

    async def scaled(old: Obj) -> Obj:
        before = to_scale(kind, old, paths)
        scale = transform(copy(before))
        await admit_part(call, SCALE, scale, before, operation="UPDATE")
        name = scale["metadata"].get("name", "")
        if name and name != call.info.name:
            raise bad_request(
                f"the name of the object ({name}) does not match the name on the URL "
                f"({call.info.name})"
            )
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            problem = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
            raise invalid_kind("Scale", "autoscaling", call.info.name, [problem])
        *parents, last = paths.wanted.strip(".").split(".")
        inner = old
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = replicas
        for field in ("resourceVersion", "uid"):
            if scale["metadata"].get(field):
                old["metadata"][field] = scale["metadata"][field]
        return old

    change = await writes.modify(call, scaled, part="scale")
    return _answer(call, change.obj)
