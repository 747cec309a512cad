"""Has images that nobody uses removed, now and then, and tells when that does not help."""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.runtime.interface import Runtime

__all__ = ["collect_images"]

log = logging.getLogger(__name__)


async def collect_images(
    config: KubeletConfig, runtime: Runtime, tell: Callable[[str, str], None]
) -> None:
    """Until cancelled. `tell` is given a reason and a message, for an event about the node."""
    while True:
        await trio.sleep(config.timings.image_garbage)
        try:
            plan = await runtime.collect_images(config.image_policy)
        except OSError as error:
            tell("ImageGCFailed", str(error))
            continue
        for image in plan.remove:
            log.info("removed image=%s", image)
        if plan.missing_bytes:
            text = (
                f"Insufficient free disk space on the node's image filesystem ({plan.usage_percent}"
                f"% used). Failed to free sufficient space by deleting unused images. Attempted to "
                f"free {plan.wanted_bytes} bytes, but only found "
                f"{plan.wanted_bytes - plan.missing_bytes} bytes eligible to free."
            )
            tell("FreeDiskSpaceFailed", text)
