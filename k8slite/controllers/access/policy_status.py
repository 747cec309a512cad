"""The status of ValidatingAdmissionPolicies: which generation was looked at, and what seems wrong.

`plan` is pure. Expressions were compiled when the policy was written, for objects of any type; here
they are checked against the types of the built-in kinds that the policy names.
"""

from __future__ import annotations

from k8slite.api.cel.policy_checks import type_warnings
from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj, copy, generation
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_policy_status_controller"]

POLICIES = KIND["validatingadmissionpolicies.admissionregistration.k8s.io"]


def plan(policy: Obj) -> list[Action]:
    """(pure)"""
    status = policy.get("status") or {}
    if status.get("observedGeneration") == generation(policy) and "typeChecking" in status:
        return []
    changed = copy(status)
    found = type_warnings(policy)
    changed["observedGeneration"] = generation(policy)
    changed["typeChecking"] = {"expressionWarnings": found} if found else {}
    return [Update(POLICIES, {**policy, "status": changed}, "status")]


async def run_policy_status_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("validatingadmissionpolicy-status-controller")
    policies = context.informer(POLICIES)

    async def reconcile(where: str) -> None:
        policy = policies.get(where)
        if policy is not None:
            await carry_out(context.api, recorder, plan(policy))

    policies.add_handler(enqueue_to(queue))
    await policies.wait_synced()
    await context.run_workers("validatingadmissionpolicy-status", queue, reconcile)
