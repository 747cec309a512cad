"""The status of ValidatingAdmissionPolicies: which generation was looked at, and what seems wrong.

`plan` is pure. Expressions were compiled when the policy was written, so what is checked here is
whether they compile still, one warning for each that does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8slite.api.cel import CompileError, compile_expression
from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj, copy, generation
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_policy_status_controller"]

POLICIES = KIND["validatingadmissionpolicies.admissionregistration.k8s.io"]
VARIABLES = (
    "object", "oldObject", "request", "params", "namespaceObject", "authorizer",
    "authorizer.requestResource", "variables",
)  # fmt: skip


def warnings(policy: Obj) -> Iterator[Obj]:
    """(pure)"""
    for i, each in enumerate(policy["spec"].get("validations") or ()):
        for part in ("expression", "messageExpression"):
            try:
                if each.get(part):
                    compile_expression(each[part], VARIABLES)
            except CompileError as error:
                yield {"fieldRef": f"spec.validations[{i}].{part}", "warning": str(error)}


def plan(policy: Obj) -> list[Action]:
    """(pure)"""
    status = policy.get("status") or {}
    if status.get("observedGeneration") == generation(policy) and "typeChecking" in status:
        return []
    changed = copy(status)
    found = [*warnings(policy)]
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
