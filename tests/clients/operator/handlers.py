"""A kopf operator: each gadget owns a config map of its size, and its status tells of it."""

from __future__ import annotations

import os
from typing import Any

import kopf
import kubernetes

GADGETS = ("operated.example.com", "v1", "gadgets")


def core() -> Any:
    return kubernetes.client.CoreV1Api(
        kubernetes.config.new_client_from_config(os.environ["KUBECONFIG"])
    )


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = True
    settings.watching.server_timeout = 5


@kopf.on.create(*GADGETS)
def create(body: kopf.Body, spec: kopf.Spec, name: str, namespace: str, **_: Any) -> dict[str, int]:
    kopf.info(body, reason="Sized", message=f"It is of size {spec['size']}.")
    conf: dict[str, Any] = {"metadata": {"name": name}, "data": {"size": str(spec["size"])}}
    kopf.adopt(conf)
    core().create_namespaced_config_map(namespace, conf)
    return {"size": spec["size"]}


@kopf.on.update(*GADGETS, field="spec.size")
def update(new: int, name: str, namespace: str, **_: Any) -> dict[str, int]:
    core().patch_namespaced_config_map(name, namespace, {"data": {"size": str(new)}})
    return {"size": new}


@kopf.on.delete(*GADGETS)
def delete(name: str, namespace: str, **_: Any) -> None:
    core().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-was-deleted"}})
