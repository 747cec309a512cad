"""Subresources of pods: binding, eviction, ephemeral containers, resize."""

from __future__ import annotations

from collections.abc import Callable

from k8slite.api.codec import BINDING, EVICTION, decode
from k8slite.api.defaults import apply_defaults
from k8slite.api.kinds import POD_DISRUPTION_BUDGETS, PODS
from k8slite.api.meta import Obj, copy, format_time, set_condition
from k8slite.api.selectors import from_object
from k8slite.api.status import ApiError, bad_request, conflict, not_found, too_many_requests
from k8slite.apiserver.admission.chain import admit_part
from k8slite.apiserver.call import Call
from k8slite.apiserver.http.message import Response, json_response
from k8slite.apiserver.registry import deletes, writes
from k8slite.apiserver.registry.pods import DONE

__all__ = [
    "bind",
    "bind_by_collection",
    "ephemeral_containers",
    "evict",
    "patch_ephemeral",
    "patch_resize",
    "resize",
]

EPHEMERAL, RESIZE = "ephemeralcontainers", "resize"
_CREATED = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def bind(call: Call) -> Response:
    """POST pods/NAME/binding: the scheduler's decision."""
    binding = decode(call.request.body, call.request.header(b"content-type"), BINDING).obj
    target = binding.get("target") or {}
    name = binding["metadata"].get("name") or call.info.name
    if name != call.info.name:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.info.name})"
        )
    if target.get("kind") not in (None, "", "Node") or not target.get("name"):
        raise bad_request("binding.target must name a Node")
    await admit_part(call, BINDING, binding)
    target = binding.get("target") or {}
    uid = binding["metadata"].get("uid")
    now = format_time(call.core.now())

    def transform(old: Obj) -> Obj:
        metadata, spec = old["metadata"], old["spec"]
        if uid and uid != metadata["uid"]:
            raise conflict(
                call.kind,
                name,
                f"Precondition failed: UID in precondition: {uid}, "
                f"UID in object meta: {metadata['uid']}",
                subresource="binding",
            )
        if metadata.get("deletionTimestamp"):
            message = f"pod {name} is being deleted, cannot be assigned to a host"
            raise conflict(call.kind, name, message, subresource="binding")
        if spec.get("nodeName"):
            message = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
            raise conflict(call.kind, name, message, subresource="binding")
        if spec.get("schedulingGates"):
            message = f"pod {name} has non-empty .spec.schedulingGates"
            raise conflict(call.kind, name, message, subresource="binding")
        spec["nodeName"] = target["name"]
        for key in ("annotations", "labels"):
            given = binding["metadata"].get(key)
            if given:
                metadata[key] = {**(metadata.get(key) or {}), **given}
        condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
        set_condition(old.setdefault("status", {}), condition, now)
        return old

    await writes.modify(call, transform, part="raw")
    return json_response(201, _CREATED)


async def bind_by_collection(call: Call) -> Response:
    """POST bindings: as `bind`, the pod's name being the binding's."""
    binding = decode(call.request.body, call.request.header(b"content-type"), BINDING).obj
    call.info.name = binding["metadata"].get("name", "")
    call.kind = PODS
    return await bind(call)


async def evict(call: Call) -> Response:
    """POST pods/NAME/eviction: a deletion that disruption budgets may refuse."""
    eviction = decode(call.request.body, call.request.header(b"content-type"), EVICTION).obj
    options = deletes.options_of(eviction.get("deleteOptions") or {}, call)
    await admit_part(call, EVICTION, eviction)
    await call.core.mirror.wait_fresh()
    entry = call.core.mirror.cache(call.kind).get(call.namespace, call.info.name)
    if entry is None:
        raise not_found(call.kind, call.info.name)
    pod = entry.parsed()
    phase = (pod.get("status") or {}).get("phase")
    if phase not in (*DONE, "Pending") and not pod["metadata"].get("deletionTimestamp"):
        await _spend_budget(call, pod)
    await deletes.delete_object(call, call.namespace, call.info.name, options, admitted=True)
    return json_response(201, _CREATED)


async def _spend_budget(call: Call, pod: Obj) -> None:
    """Take one disruption from the pod's budget. Raises ApiError 429, or 500 for two budgets."""
    budgets = []
    labels = pod["metadata"].get("labels")
    cache = call.core.mirror.cache(POD_DISRUPTION_BUDGETS)
    for entry in cache.select(f"{call.namespace}/"):
        selector = (entry.parsed().get("spec") or {}).get("selector")
        if from_object(selector).matches(labels):
            budgets.append(entry)
    if len(budgets) > 1:
        raise ApiError(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource "
            "does not support.",
        )
    if not budgets:
        return
    name, now = budgets[0].name, format_time(call.core.now())

    def transform(old: Obj) -> Obj:
        status = old.setdefault("status", {})
        observed = status.get("observedGeneration", 0) >= old["metadata"].get("generation", 0)
        if not observed or not status.get("disruptionsAllowed", 0) > 0:
            needed = status.get("desiredHealthy", 0)
            healthy = status.get("currentHealthy", 0)
            cause = {
                "reason": "DisruptionBudget",
                "message": f"The disruption budget {name} needs {needed} healthy pods "
                f"and has {healthy} currently",
            }
            raise too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.", 0, [cause]
            )
        status["disruptionsAllowed"] -= 1
        status.setdefault("disruptedPods", {})[pod["metadata"]["name"]] = now
        return old

    info = type(call.info)(
        call.info.path,
        "update",
        POD_DISRUPTION_BUDGETS.group,
        POD_DISRUPTION_BUDGETS.version,
        call.namespace,
        POD_DISRUPTION_BUDGETS.plural,
        name,
    )
    inner = Call(call.core, call.request, info, call.user, POD_DISRUPTION_BUDGETS)
    await writes.modify(inner, transform, part="raw")


async def ephemeral_containers(call: Call) -> Response:
    """PUT pods/NAME/ephemeralcontainers: containers may be added, never changed."""
    given = writes.read_body(call)
    return await _only(call, lambda old: given, EPHEMERAL, ("ephemeralContainers",))


async def patch_ephemeral(call: Call) -> Response:
    """PATCH pods/NAME/ephemeralcontainers."""
    transform = writes.patch_transform(call, call.kind)
    return await _only(call, transform, EPHEMERAL, ("ephemeralContainers",))


async def resize(call: Call) -> Response:
    """PUT pods/NAME/resize: the resources of containers."""
    given = writes.read_body(call)
    return await _only(call, lambda old: given, RESIZE, ("containers", "initContainers"))


async def patch_resize(call: Call) -> Response:
    """PATCH pods/NAME/resize."""
    transform = writes.patch_transform(call, call.kind)
    return await _only(call, transform, RESIZE, ("containers", "initContainers"))


async def _only(
    call: Call, transform: Callable[[Obj], Obj], part: str, fields: tuple[str, ...]
) -> Response:
    """Apply a change, of which only these parts of the spec are taken over."""

    def limited(old: Obj) -> Obj:
        new: Obj = copy(transform(copy(old)))
        apply_defaults(call.kind, new)
        result = copy(old)
        for field in fields:
            if field in (new.get("spec") or {}):
                result["spec"][field] = new["spec"][field]
        version = new["metadata"].get("resourceVersion")
        if version:
            result["metadata"]["resourceVersion"] = version
        return result

    change = await writes.modify(call, limited, part=part)
    return writes.answer(call, 200, change.obj)
