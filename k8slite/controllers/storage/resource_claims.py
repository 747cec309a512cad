"""ResourceClaims of pods: made of templates, given back when nobody uses them any more.

`plan_pod` and `plan_claim` are pure. A claim made for a pod has a name that follows from the pod's
uid, so that none is made twice; it goes with its pod. The scheduler allocates claims and notes who
uses them; here those users are struck out that have finished, and a claim without users gives its
devices back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from k8slite.api import meta
from k8slite.api.kinds import KIND, PODS
from k8slite.api.meta import (
    Obj,
    copy,
    deleting,
    is_controlled_by,
    key,
    make_key,
    name,
    namespace,
    owner_reference,
    split_key,
    uid,
)
from k8slite.api.status import ApiError
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Note, Patch, Update, delete
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import controller_key
from k8slite.controllers.workloads.pods import is_terminal

__all__ = ["plan_claim", "plan_pod", "run_resource_claim_controller"]

CLAIMS = KIND["resourceclaims.resource.k8s.io"]
TEMPLATES = KIND["resourceclaimtemplates.resource.k8s.io"]
POD_CLAIM = "resource.kubernetes.io/pod-claim-name"
FINALIZER = "resource.kubernetes.io/delete-protection"
NAME_LENGTH = 63
NOT_FOUND = 404
Lookup = Callable[[str], Obj | None]


def claim_name(pod: Obj, own: str) -> str:
    digest = hashlib.sha256(f"{uid(pod)}/{own}".encode()).hexdigest()[:5]
    return f"{name(pod)}-{own}"[: NAME_LENGTH - 6] + f"-{digest}"


def is_done(pod: Obj) -> bool:
    """It will never use a claim again."""
    return is_terminal(pod) or (deleting(pod) and not pod["spec"].get("nodeName"))


def plan_pod(pod: Obj, claim_named: Lookup, template_named: Lookup) -> list[Action]:
    """Claims that the pod lacks, and their names for its status. Claims are looked up by key."""
    if is_done(pod) or deleting(pod):
        return []
    actions: list[Action] = []
    statuses: list[Obj] = []
    for wanted in pod["spec"].get("resourceClaims") or ():
        template_name = wanted.get("resourceClaimTemplateName")
        if not template_name:
            continue
        own = claim_name(pod, wanted["name"])
        found = claim_named(make_key(namespace(pod), own))
        if found is None:
            template = template_named(make_key(namespace(pod), template_name))
            if template is None:
                message = f'resourceclaimtemplate.resource.k8s.io "{template_name}" not found'
                told = f"PodResourceClaim {wanted['name']}: {message}"
                actions.append(Note(pod, "Warning", "FailedResourceClaimCreation", told))
                continue
            actions.append(Create(CLAIMS, new_claim(pod, wanted["name"], own, template)))
        elif not is_controlled_by(found, pod):
            told = f"ResourceClaim {own} was not created for this pod"
            actions.append(Note(pod, "Warning", "FailedResourceClaimCreation", told))
            continue
        statuses.append({"name": wanted["name"], "resourceClaimName": own})
    now = (pod.get("status") or {}).get("resourceClaimStatuses") or []
    if statuses and sorted(statuses, key=str) != sorted(now, key=str):
        patch = {"metadata": {"uid": uid(pod)}, "status": {"resourceClaimStatuses": statuses}}
        actions.append(Patch(PODS, namespace(pod), name(pod), patch, "status"))
    return actions


def new_claim(pod: Obj, wanted: str, own: str, template: Obj) -> Obj:
    body = template["spec"]
    given = body.get("metadata") or {}
    metadata = {
        "name": own,
        "namespace": namespace(pod),
        "labels": copy(given.get("labels") or {}),
        "annotations": {**(given.get("annotations") or {}), POD_CLAIM: wanted},
        "ownerReferences": [owner_reference(PODS, pod)],
    }
    api = {"apiVersion": CLAIMS.api_version, "kind": CLAIMS.kind}
    return {**api, "metadata": metadata, "spec": copy(body["spec"])}


def plan_claim(claim: Obj, is_using: Callable[[Obj], bool], owner: Obj | None) -> list[Action]:
    """`is_using`: whether one entry of reservedFor still counts; `owner`: the pod for which the
    claim was made, if it is there."""
    status = claim.get("status") or {}
    users: Sequence[Obj] = status.get("reservedFor") or ()
    left = [user for user in users if is_using(user)]
    allocation = status.get("allocation")
    frees = allocation is not None and not left and (bool(users) or deleting(claim))
    if len(left) != len(users) or frees:
        changed = {k: v for k, v in status.items() if k != "reservedFor"}
        if left:
            changed["reservedFor"] = left
        if frees:
            changed = {k: v for k, v in changed.items() if k not in ("allocation", "devices")}
        return [Update(CLAIMS, {**claim, "status": changed}, "status")]
    held = claim["metadata"].get("finalizers") or []
    if allocation is None and not users and FINALIZER in held:
        kept = [each for each in held if each != FINALIZER]
        metadata = {**claim["metadata"], "finalizers": kept}
        return [Update(CLAIMS, {**claim, "metadata": metadata})]
    made_for_pod = POD_CLAIM in meta.annotations(claim)
    if made_for_pod and owner is not None and is_done(owner) and not deleting(claim):
        return [delete(CLAIMS, claim)]
    return []


async def run_resource_claim_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[tuple[str, str]] = WorkQueue()
    recorder = context.recorder("resource_claim")
    pods, claims = context.informer(PODS), context.informer(CLAIMS)
    templates = context.informer(TEMPLATES)

    def on_pod(old: Obj | None, new: Obj | None) -> None:
        for pod in (old, new):
            if pod is None or not pod["spec"].get("resourceClaims"):
                continue
            queue.add(("pod", key(pod)))
            if new is None or is_done(new):
                for wanted in pod["spec"]["resourceClaims"]:
                    own = wanted.get("resourceClaimName") or claim_name(pod, wanted["name"])
                    queue.add(("claim", make_key(namespace(pod), own)))

    def on_claim(old: Obj | None, new: Obj | None) -> None:
        claim = new or old
        assert claim is not None
        queue.add(("claim", key(claim)))
        owner = controller_key(claim, PODS)
        if owner is not None:
            queue.add(("pod", owner))

    def on_template(old: Obj | None, new: Obj | None) -> None:
        """Pods may have waited for it."""
        if old is None and new is not None:
            for pod in pods.list():
                same = namespace(pod) == namespace(new)
                if same and pod["spec"].get("resourceClaims"):
                    queue.add(("pod", key(pod)))

    async def live_pod(where: str, wanted_uid: str) -> Obj | None:
        """The pod; one that the cache does not know (yet) is asked for."""
        pod = pods.get(where)
        if pod is None or uid(pod) != wanted_uid:
            space, own = split_key(where)
            try:
                pod = await context.api.get(PODS, own, space)
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise
                return None
        return pod if uid(pod) == wanted_uid else None

    async def reconcile(item: tuple[str, str]) -> None:
        what, where = item
        if what == "pod":
            pod = pods.get(where)
            if pod is not None:
                await make_claims(pod)
            return
        claim = claims.get(where)
        if claim is None:
            return
        there: dict[str, Obj | None] = {}
        for user in (claim.get("status") or {}).get("reservedFor") or ():
            if user.get("resource") == "pods":
                at = make_key(namespace(claim), user["name"])
                there[user["uid"]] = await live_pod(at, user["uid"])

        def is_using(user: Obj) -> bool:
            pod = there.get(user["uid"])
            return user.get("resource") != "pods" or (pod is not None and not is_done(pod))

        owner = controller_key(claim, PODS)
        actions = plan_claim(claim, is_using, pods.get(owner) if owner else None)
        await carry_out(context.api, recorder, actions)

    async def make_claims(pod: Obj) -> None:
        for action in plan_pod(pod, claims.get, templates.get):
            try:
                await carry_out(context.api, recorder, [action])
            except ApiError as error:
                if not isinstance(action, Create) or error.reason != "AlreadyExists":
                    raise

    templates.add_handler(on_template)
    claims.add_handler(on_claim)
    pods.add_handler(on_pod)
    for informer in (pods, claims, templates):
        await informer.wait_synced()
    await context.run_workers("resource_claim", queue, reconcile)
