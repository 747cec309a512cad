"""The ConfigMap `kube-root-ca.crt` of every namespace: how pods know the apiserver's authority."""

from __future__ import annotations

from k8slite.api.kinds import CONFIG_MAPS, NAMESPACES
from k8slite.api.meta import Obj, name, namespace
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.access.serviceaccount import is_live
from k8slite.controllers.actions import Action, Create, Update
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = ["plan", "run_root_ca_controller"]

NAME = "kube-root-ca.crt"
DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal "
    "endpoints such as the internal service IP or kubernetes.default.svc. No other usage is "
    "guaranteed across distributions of Kubernetes clusters."
)


def plan(space: Obj | None, config_map: Obj | None, root_ca: str) -> list[Action]:
    """Make the namespace's copy say what it must (pure)."""
    if space is None or not is_live(space) or not root_ca:
        return []
    data = {"ca.crt": root_ca}
    if config_map is None:
        metadata = {
            "name": NAME,
            "namespace": name(space),
            "annotations": {"kubernetes.io/description": DESCRIPTION},
        }
        new = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return [Create(CONFIG_MAPS, new)]
    if config_map.get("data") == data:
        return []
    return [Update(CONFIG_MAPS, {**config_map, "data": data})]


async def run_root_ca_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("root-ca-certificate-publisher")
    spaces = context.informer(NAMESPACES)
    config_maps = context.informer(CONFIG_MAPS)

    def on_config_map(old: Obj | None, new: Obj | None) -> None:
        obj = new or old
        if obj is not None and name(obj) == NAME:
            queue.add(namespace(obj))

    async def reconcile(key: str) -> None:
        existing = config_maps.get(f"{key}/{NAME}")
        actions = plan(spaces.get(key), existing, context.root_ca)
        await carry_out(context.api, recorder, actions)

    spaces.add_handler(enqueue_to(queue))
    config_maps.add_handler(on_config_map)
    await config_maps.wait_synced()
    await context.run_workers("root-ca", queue, reconcile)
