"""DefaultBinder: writes the decision to the apiserver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8slite.scheduler.framework import BindFailed, Handle
from k8slite.scheduler.pod_info import PodInfo

__all__ = ["DefaultBinder"]


class DefaultBinder:
    name = "DefaultBinder"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._services = handle.services

    async def bind(self, pod: PodInfo, node_name: str) -> bool:
        if self._services is None:
            raise BindFailed("there is no apiserver here")
        await self._services.bind(pod, node_name)
        return True
