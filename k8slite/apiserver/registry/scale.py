"""scale: the replicas of a workload behind one common shape (autoscaling/v1 Scale)."""

from __future__ import annotations

import orjson

from k8slite.api.codec import SCALE, decode, from_parsed, media_type
from k8slite.api.kinds import KIND, Kind
from k8slite.api.meta import Obj
from k8slite.api.selectors import SelectorError, from_object
from k8slite.api.status import bad_request, invalid_kind, invalid_value
from k8slite.apiserver.call import Call
from k8slite.apiserver.forms import negotiate, read
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.options import check_write_options
from k8slite.apiserver.registry import writes
from k8slite.apiserver.registry.patches import apply_patch
from k8slite.apiserver.registry.reads import find

__all__ = ["get_scale", "patch_scale", "put_scale"]

SCALE_KIND = Kind(group="autoscaling", version="v1", kind="Scale", plural="scales")
_PLAIN_SELECTOR = "replicationcontrollers"
_COPIED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def to_scale(kind: Kind, obj: Obj) -> Obj:
    """The Scale of a workload."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    scale_spec, scale_status = {}, {"replicas": status.get("replicas", 0)}
    if spec.get("replicas"):
        scale_spec["replicas"] = spec["replicas"]
    if kind.resource == _PLAIN_SELECTOR:
        chosen = spec.get("selector") or {}
        text = ",".join(f"{k}={v}" for k, v in sorted(chosen.items()))
    else:
        try:
            text = str(from_object(spec.get("selector")))
        except SelectorError:
            text = ""
    if text:
        scale_status["selector"] = text
    metadata = obj["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _COPIED if key in metadata},
        "spec": scale_spec,
        "status": scale_status,
    }


def _answer(call: Call, obj: Obj) -> Response:
    form = negotiate(call.request)
    body = form.value(KIND.get("scales.autoscaling", SCALE_KIND), to_scale(call.kind, obj), 0.0)
    return form.response(200, body, call.headers())


async def get_scale(call: Call) -> Response:
    """GET .../scale"""
    entry = await find(call)
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


async def _change(call: Call, transform: writes.Transform) -> Response:
    kind = call.kind

    def scaled(old: Obj) -> Obj:
        scale = transform(to_scale(kind, old))
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
        old["spec"]["replicas"] = replicas
        for field in ("resourceVersion", "uid"):
            if scale["metadata"].get(field):
                old["metadata"][field] = scale["metadata"][field]
        return old

    change = await writes.modify(call, scaled)
    return _answer(call, change.obj)
