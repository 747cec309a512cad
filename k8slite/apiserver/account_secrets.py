"""Secrets of the type kubernetes.io/service-account-token are filled with a token that has no end.

Every server does this; the writes are guarded by revision, so that they need no leader. A Secret
whose service account is gone, or is another one by now, is deleted.
"""

from __future__ import annotations

import base64
import logging

import trio

from k8slite.api.kinds import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from k8slite.api.meta import Obj, copy
from k8slite.apiserver.auth.jwt import LEGACY_ISSUER
from k8slite.apiserver.core import Core
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.rounds import run_rounds
from k8slite.apiserver.store.base import Changed, Write
from raftkv.errors import KvError

__all__ = ["filled", "run_account_secrets"]

log = logging.getLogger(__name__)

TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
ROOT_CA = "kube-root-ca.crt"
CHECK_SECONDS = 30.0
"""In case that the authorities' certificate came late."""


async def run_account_secrets(core: Core) -> None:
    """For ever: look at these Secrets whenever one of them, or an account, has changed."""
    if core.signer is not None:
        kinds = (SECRETS, SERVICE_ACCOUNTS)
        await run_rounds(core, kinds, lambda: _round(core), every_seconds=CHECK_SECONDS)


async def _round(core: Core) -> bool:
    done = True
    accounts = core.mirror.cache(SERVICE_ACCOUNTS)
    for entry in list(core.mirror.cache(SECRETS).entries.values()):
        if TYPE.encode() not in entry.body:
            continue
        secret = entry.parsed()
        annotations = secret["metadata"].get("annotations") or {}
        if secret.get("type") != TYPE or not annotations.get(NAME):
            continue
        account = accounts.get(entry.namespace, annotations[NAME])
        known = None if account is None else account.parsed()
        key, uid = storage_key(SECRETS, entry.namespace, entry.name), annotations.get(UID)
        value: bytes | None = None
        if known is not None and uid in (None, "", known["metadata"]["uid"]):
            new = filled(core, secret, known)
            if new == secret:
                continue
            value = encode(new)
        elif not uid:
            continue  # the account may be on its way
        try:
            with trio.fail_after(core.config.store_seconds):
                await core.store.commit([Write(key, value, entry.revision)])
        except Changed:
            log.debug("secret changed meanwhile key=%s", entry.key)
        except (KvError, trio.TooSlowError) as error:
            log.warning("secret waits key=%s: %s", entry.key, error)
            done = False
    return done


def filled(core: Core, secret: Obj, account: Obj) -> Obj:
    """The Secret with all that it must hold."""
    assert core.signer is not None
    new, metadata = copy(secret), account["metadata"]
    namespace = metadata["namespace"]
    new["metadata"].setdefault("annotations", {})[UID] = metadata["uid"]
    data = new["data"] = dict(new.get("data") or {})
    if not data.get("token"):
        prefix = "kubernetes.io/serviceaccount/"
        claims = {
            "iss": LEGACY_ISSUER,
            f"{prefix}namespace": namespace,
            f"{prefix}secret.name": secret["metadata"]["name"],
            f"{prefix}service-account.name": metadata["name"],
            f"{prefix}service-account.uid": metadata["uid"],
            "sub": f"system:serviceaccount:{namespace}:{metadata['name']}",
        }
        data["token"] = _encoded(core.signer.sign(claims))
    data.setdefault("namespace", _encoded(namespace))
    authority = core.mirror.cache(CONFIG_MAPS).get(namespace, ROOT_CA)
    if authority is not None and "ca.crt" not in data:
        data["ca.crt"] = _encoded((authority.parsed().get("data") or {}).get("ca.crt", ""))
    return new


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
