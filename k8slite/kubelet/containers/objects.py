"""The objects a pod refers to, read when they are needed: ConfigMaps, Secrets, claims, tokens.

Thin: each call asks the API; what is not there is left out, and what that means is decided by
the pure modules. Tokens are kept until four fifths of their life are over.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from k8slite.api.kinds import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from k8slite.api.meta import Obj, is_controlled_by, key, parse_time
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.kubelet.containers.environment import Sources
from k8slite.kubelet.runtime.interface import ConfigFailure
from k8slite.kubelet.volumes.volumes import TokenRequest, claim_name
from raftkv.host import Host

NOT_FOUND = 404
KINDS = {"configMap": CONFIG_MAPS, "secret": SECRETS}


async def fetch(api: Api, namespace: str, references: Iterable[tuple[str, str]]) -> Sources:
    """Raises ApiError (but for 404) and ClientError."""
    found = {}
    for kind, name in dict.fromkeys(references):
        try:
            found[kind, name] = await api.get(KINDS[kind], name, namespace)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
    return Sources(found)


async def fetch_claims(api: Api, pod: Obj) -> dict[str, str]:
    """The path on this node of each bound claim the pod uses.

    Raises ConfigFailure for a claim that was not made for the pod, as it should have been.
    """
    paths = {}
    for volume in pod["spec"].get("volumes") or ():
        claim = claim_name(pod, volume)
        if not claim:
            continue
        try:
            found = await api.get(PERSISTENT_VOLUME_CLAIMS, claim, pod["metadata"]["namespace"])
            if volume.get("ephemeral") and not is_controlled_by(found, pod):
                raise ConfigFailure(
                    f"PVC {key(found)} was not created for pod {key(pod)} (pod is not owner)"
                )
            bound = found["spec"].get("volumeName")
            if not bound:
                continue
            volume_spec = (await api.get(PERSISTENT_VOLUMES, bound))["spec"]
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            continue
        local = volume_spec.get("hostPath") or volume_spec.get("local")
        if local:
            paths[claim] = local["path"]
    return paths


@attrs.frozen
class _Token:
    token: str
    renew_at: float


class TokenCache:
    """The service account tokens of one pod."""

    def __init__(self, api: Api, host: Host) -> None:
        self._api = api
        self._host = host
        self._tokens: dict[TokenRequest, _Token] = {}

    async def get(self, pod: Obj, wanted: Iterable[TokenRequest]) -> dict[TokenRequest, str]:
        """Raises ApiError, ClientError."""
        result = {}
        for request in wanted:
            kept = self._tokens.get(request)
            if kept is None or kept.renew_at <= self._host.now():
                kept = self._tokens[request] = await self._request(pod, request)
            result[request] = kept.token
        return result

    async def _request(self, pod: Obj, request: TokenRequest) -> _Token:
        meta = pod["metadata"]
        body: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {},
            "spec": {
                "audiences": [request.audience] if request.audience else [],
                "expirationSeconds": request.expiration_seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
            },
        }
        answer = await self._api.create(
            SERVICE_ACCOUNTS,
            body,
            namespace=meta["namespace"],
            name=pod["spec"].get("serviceAccountName") or "default",
            subresource="token",
        )
        now = self._host.now()
        ends = parse_time(answer["status"]["expirationTimestamp"])
        return _Token(answer["status"]["token"], now + max(1.0, 0.8 * (ends - now)))
