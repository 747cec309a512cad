"""Have a container's image on this node, as its pull policy says, with the pod's pull secrets."""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from k8slite.api.kinds import SECRETS
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.containers.problem import StartProblem
from k8slite.kubelet.context import Context
from k8slite.kubelet.images.credentials import (
    BadCredentials,
    Credential,
    Keyring,
    read_config,
    read_secret,
)
from k8slite.kubelet.images.reference import InvalidReference, Reference, parse_reference
from k8slite.kubelet.runtime.interface import RuntimeFailure

__all__ = ["ensure_image"]

log = logging.getLogger(__name__)


async def ensure_image(context: Context, pod: Obj, image: str, policy: str, name: str) -> None:
    """`policy`: Always, IfNotPresent or Never; `name`: the container, for events.

    Raises StartProblem.
    """
    try:
        reference = parse_reference(image)
    except InvalidReference as error:
        context.event(pod, "Warning", "InspectFailed", str(error), name)
        context.event(pod, "Warning", "Failed", "Error: InvalidImageName", name)
        raise StartProblem("InvalidImageName", str(error), image=True) from None
    found = await context.runtime.image_status(image)
    if found is not None and policy != "Always":
        text = f'Container image "{image}" already present on machine'
        context.event(pod, "Normal", "Pulled", text, name)
        return
    if policy == "Never":
        text = f'Container image "{image}" is not present with pull policy of Never'
        context.event(pod, "Warning", "ErrImageNeverPull", text, name)
        context.event(pod, "Warning", "Failed", "Error: ErrImageNeverPull", name)
        raise StartProblem("ErrImageNeverPull", text, image=True)
    context.event(pod, "Normal", "Pulling", f'Pulling image "{image}"', name)
    started = trio.current_time()
    try:
        credentials = await _credentials(context, pod, reference)
        pulled = await context.runtime.pull_image(image, credentials)
    except RuntimeFailure as error:
        text = f'Failed to pull image "{image}": {error}'
        context.event(pod, "Warning", "Failed", text, name)
        context.event(pod, "Warning", "Failed", "Error: ErrImagePull", name)
        raise StartProblem("ErrImagePull", str(error), image=True) from None
    seconds = f"{trio.current_time() - started:.3g}s"
    text = (
        f'Successfully pulled image "{image}" in {seconds} ({seconds} including waiting). '
        f"Image size: {pulled.size_bytes} bytes."
    )
    context.event(pod, "Normal", "Pulled", text, name)


async def _credentials(context: Context, pod: Obj, reference: Reference) -> tuple[Credential, ...]:
    """Those of the pod's secrets, then the node's own."""
    keyring, missing = Keyring(), []
    for entry in pod["spec"].get("imagePullSecrets") or ():
        secret = entry.get("name")
        if not secret:
            continue
        try:
            found = await context.api.get(SECRETS, secret, pod["metadata"]["namespace"])
            keyring.add(read_secret(found))
        except (ApiError, *REQUEST_ERRORS, BadCredentials) as error:
            log.warning("pull secret=%s cannot be used: %s", secret, error)
            missing.append(secret)
    if missing:
        text = (
            f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
            "attempting to pull the image may not succeed."
        )
        context.event(pod, "Warning", "FailedToRetrieveImagePullSecret", text)
    own = Keyring()
    own.add(_node_config(context.config.docker_config))
    both = (*keyring.lookup(reference.repository), *own.lookup(reference.repository))
    return tuple(dict.fromkeys(both))


def _node_config(path: str) -> dict[str, Credential]:
    if not path:
        return {}
    try:
        return read_config(Path(path).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, BadCredentials) as error:
        log.warning("%s cannot be used: %s", path, error)
        return {}
