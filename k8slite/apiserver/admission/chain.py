"""Admission: what the cluster adds to an object, and what it refuses although it is well formed.

Owns: the order of the plugins. Each one is an async function of (call, new, old); `old` is None
for a create. They may raise ApiError. Those of `admit` run before validation and may change
`new`; those of `review` run after it and may not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from k8slite.api.codec import Expected
from k8slite.api.meta import Obj
from k8slite.apiserver.admission.dynamic.attributes import (
    CREATE,
    DELETE,
    UPDATE,
    Attributes,
    is_exempt,
)
from k8slite.apiserver.admission.dynamic.mutations import mutating_policies
from k8slite.apiserver.admission.dynamic.policies import validating_policies
from k8slite.apiserver.admission.dynamic.reinvocation import Pass, Reinvocation
from k8slite.apiserver.admission.dynamic.webhooks import mutating_webhooks, validating_webhooks
from k8slite.apiserver.admission.limits import default_limits, within_limits
from k8slite.apiserver.admission.namespaces import namespace_lifecycle
from k8slite.apiserver.admission.nodes import node_restriction
from k8slite.apiserver.admission.pods import (
    default_tolerations,
    overhead_has_class,
    priority,
    runtime_class,
    service_account,
)
from k8slite.apiserver.admission.storage import default_storage_class
from k8slite.apiserver.call import Call

__all__ = ["admit", "admit_part", "review", "review_delete"]

Plugin = Callable[[Call, Obj, Obj | None], Awaitable[None]]

EVERY: tuple[Plugin, ...] = (namespace_lifecycle,)
BY_RESOURCE: dict[str, tuple[Plugin, ...]] = {
    "pods": (
        default_limits,
        service_account,
        priority,
        default_tolerations,
        runtime_class,
    ),
    "persistentvolumeclaims": (default_storage_class,),
}

REVIEWS: dict[str, tuple[Plugin, ...]] = {
    "pods": (within_limits, overhead_has_class, node_restriction),
    "persistentvolumeclaims": (within_limits,),
    "nodes": (node_restriction,),
}


async def admit(call: Call, new: Obj, old: Obj | None) -> None:
    """Run all plugins that may change an object. Raises ApiError."""

    async def plugins() -> None:
        await _admit(call, new, old)

    await plugins()
    if not is_exempt(call):
        await _mutate(Attributes(call, CREATE if old is None else UPDATE, new, old), plugins)


async def admit_part(
    call: Call, body: Expected, new: Obj, old: Obj | None = None, *, operation: str = CREATE
) -> None:
    """The whole of admission for what a subresource is written with. Raises ApiError.

    `new` may change; what is then done with it nobody but the subresource's handler refuses.
    """
    if is_exempt(call):
        return
    attributes = Attributes(call, operation, new, old, body)
    await _mutate(attributes, _no_plugins)
    await _ask(attributes)


async def _no_plugins() -> None:
    """None of the built-in ones looks at such objects."""


async def _mutate(attributes: Attributes, plugins: Callable[[], Awaitable[None]]) -> None:
    """Policies, then webhooks; if one changed the object, plugins and those who want to again."""
    shared = Reinvocation()
    policies, webhooks = Pass(shared), Pass(shared)
    await mutating_policies(attributes, policies)
    await mutating_webhooks(attributes, webhooks)
    if shared.wanted:
        shared.again = True
        await plugins()
        await mutating_policies(attributes, policies)
        await mutating_webhooks(attributes, webhooks)


async def _admit(call: Call, new: Obj, old: Obj | None) -> None:
    for plugin in EVERY:
        await plugin(call, new, old)
    for plugin in BY_RESOURCE.get(call.kind.resource, ()):
        await plugin(call, new, old)


async def review(call: Call, new: Obj, old: Obj | None) -> None:
    """Run all plugins that may only refuse. Raises ApiError."""
    for plugin in REVIEWS.get(call.kind.resource, ()):
        await plugin(call, new, old)
    if not is_exempt(call):
        await _ask(Attributes(call, CREATE if old is None else UPDATE, new, old))


async def review_delete(call: Call, old: Obj) -> None:
    """Run all plugins that may refuse a deletion. Raises ApiError."""
    if not is_exempt(call):
        await _ask(Attributes(call, DELETE, None, old))


async def _ask(attributes: Attributes) -> None:
    await validating_policies(attributes)
    await validating_webhooks(attributes)
