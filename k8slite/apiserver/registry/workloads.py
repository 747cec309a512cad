"""Workloads whose server-side part is more than a status: deployments, daemon sets, jobs."""

from __future__ import annotations

from k8slite.api.meta import Obj
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.strategy import Strategy

__all__ = ["DaemonSetStrategy", "DeploymentStrategy", "JobStrategy"]

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_JOB_NAME = "batch.kubernetes.io/job-name"


class DeploymentStrategy(Strategy):
    """Annotations count as wanted, because they are copied to the replica sets."""

    def prepare_update(self, call: Call, new: Obj, old: Obj) -> None:
        super().prepare_update(call, new, old)
        was, now = old["metadata"], new["metadata"]
        if was.get("annotations") != now.get("annotations"):
            now["generation"] = was.get("generation", 0) + 1

    def prepare_status(self, call: Call, new: Obj, old: Obj) -> None:
        super().prepare_status(call, new, old)
        labels = old["metadata"].get("labels")
        if labels is None:
            new["metadata"].pop("labels", None)
        else:
            new["metadata"]["labels"] = labels


class DaemonSetStrategy(Strategy):
    """An annotation counts the changes of the template."""

    def prepare_create(self, call: Call, obj: Obj) -> None:
        super().prepare_create(call, obj)
        obj["metadata"].setdefault("annotations", {})[_TEMPLATE_GENERATION] = "1"

    def prepare_update(self, call: Call, new: Obj, old: Obj) -> None:
        super().prepare_update(call, new, old)
        text = (old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "1")
        count = int(text) if text.isdigit() else 1
        if new["spec"].get("template") != old["spec"].get("template"):
            count += 1
        annotations = new["metadata"].get("annotations") or {}
        new["metadata"]["annotations"] = {**annotations, _TEMPLATE_GENERATION: str(count)}


class JobStrategy(Strategy):
    """Unless the user chooses the selector, it is made of the job's own uid."""

    def prepare_create(self, call: Call, obj: Obj) -> None:
        super().prepare_create(call, obj)
        spec, metadata = obj.get("spec") or {}, obj["metadata"]
        template = spec.get("template")
        if spec.get("manualSelector") or not isinstance(template, dict):
            return
        spec.setdefault("manualSelector", False)
        uid, name = metadata["uid"], metadata.get("name", "")
        labels = {
            _CONTROLLER_UID: uid,
            _JOB_NAME: name,
            "controller-uid": uid,
            "job-name": name,
        }
        pod = template.setdefault("metadata", {})
        own = bool(pod.get("labels"))
        pod["labels"] = {**(pod.get("labels") or {}), **labels}
        if not own and not metadata.get("labels"):
            metadata["labels"] = dict(pod["labels"])
        selector = spec.setdefault("selector", {})
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), _CONTROLLER_UID: uid}
