"""Whom servers behind this one may trust: the ConfigMap that they read it from.

It follows the certificates that this server was started with.
"""

from __future__ import annotations

import orjson

from k8slite.api.kinds import CONFIG_MAPS
from k8slite.api.meta import Obj
from k8slite.apiserver.bootstrap.objects import new_object
from k8slite.apiserver.core import Core
from k8slite.apiserver.forms import read
from k8slite.apiserver.objects import encode, storage_key
from k8slite.apiserver.store.base import Changed, Write

__all__ = ["publish_trust"]

NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
FRONT_PROXY = "front-proxy-client"
_LISTS = {
    "requestheader-allowed-names": FRONT_PROXY,
    "requestheader-extra-headers-prefix": "X-Remote-Extra-",
    "requestheader-group-headers": "X-Remote-Group",
    "requestheader-uid-headers": "X-Remote-Uid",
    "requestheader-username-headers": "X-Remote-User",
}


def _data(core: Core) -> Obj:
    config, data = core.config, {}
    if config.client_ca:
        data["client-ca-file"] = config.client_ca.decode()
    if config.proxy_client_ca:
        data["requestheader-client-ca-file"] = config.proxy_client_ca.decode()
        data |= {key: orjson.dumps([value]).decode() for key, value in _LISTS.items()}
    return data


async def publish_trust(core: Core) -> None:
    """Write it where it is news. Raises KvError."""
    data = _data(core)
    if not data:
        return
    entry = core.mirror.cache(CONFIG_MAPS).get(NAMESPACE, NAME)
    if entry is None:
        metadata = {"name": NAME, "namespace": NAMESPACE}
        obj = new_object(core, CONFIG_MAPS, {"metadata": metadata, "data": data})
    else:
        obj = read(CONFIG_MAPS, entry)
        if obj.get("data") == data:
            return
        obj["data"] = data
    key = storage_key(CONFIG_MAPS, NAMESPACE, NAME)
    try:
        await core.store.commit([Write(key, encode(obj), entry.revision if entry else 0)])
    except Changed:
        return  # another server, started with the same certificates, was faster
