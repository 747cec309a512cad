"""Static pods: manifests in a directory of the node, run with or without an apiserver.

Each has a mirror in the API, so that it is seen there: an ordinary object with an id of its own,
which the kubelet makes again when somebody deletes it. What runs follows the file alone.

Owns: the pods read from the directory, and what is known of their mirrors.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj, format_time, make_key
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.config import KubeletConfig
from k8slite.kubelet.pods import MIRROR, SOURCE, is_mirror
from raftkv.host import Host

__all__ = ["StaticPods", "mirror_of", "read_pod"]

log = logging.getLogger(__name__)

HASH = "kubernetes.io/config.hash"
SEEN = "kubernetes.io/config.seen"
SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES_MAX = 10 * 1024 * 1024
CONFLICT, NOT_FOUND = 409, 404


def read_pod(body: bytes, path: str, node_name: str, now: float) -> Obj:
    """The pod of a manifest (pure). Raises ApiError, ValueError with what is wrong with it.

    Its uid is a hash of file and node, so that a new kubelet knows what an old one has started.
    """
    # Much to import for a kubelet that has no static pods.
    from k8slite.api.codec import decode
    from k8slite.api.defaults import apply_defaults
    from k8slite.api.validation import validate_create

    pod = decode(body, "application/yaml", PODS).obj
    apply_defaults(PODS, pod)
    meta = pod["metadata"]
    uid = hashlib.md5(body + path.encode() + node_name.encode(), usedforsecurity=False).hexdigest()
    meta["name"] = f"{meta.get('name', '')}-{node_name}"
    meta.setdefault("namespace", "default")
    meta["uid"] = uid
    notes = {HASH: uid, SEEN: format_time(now), SOURCE: "file"}
    meta["annotations"] = {**(meta.get("annotations") or {}), **notes}
    spec = pod["spec"]
    spec["nodeName"] = node_name
    spec["enableServiceLinks"] = False
    everything = {"operator": "Exists", "effect": "NoExecute"}
    spec["tolerations"] = [*(spec.get("tolerations") or ()), everything]
    problems = validate_create(PODS, pod)
    if problems:
        raise ValueError("; ".join(f"{each.field}: {each.body()}" for each in problems))
    pod.pop("status", None)
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def mirror_of(pod: Obj, node: Obj) -> Obj:
    """The object that shows a static pod in the API (pure)."""
    meta = {k: v for k, v in pod["metadata"].items() if k != "uid"}
    meta["annotations"] = {**meta["annotations"], MIRROR: pod["metadata"]["uid"]}
    own = {"apiVersion": "v1", "kind": "Node", "controller": True}
    meta["ownerReferences"] = [
        {**own, "name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
    ]
    return {**pod, "metadata": meta}


@attrs.define
class StaticPods:
    """`start`, `remove` are told of pods and uids; `mirrored` of a pod's mirror, or of none."""

    config: KubeletConfig
    host: Host
    api: Api
    node: Callable[[], Obj]
    start: Callable[[Obj], None]
    remove: Callable[[str], None]
    mirrored: Callable[[str, Obj | None], None]
    _files: dict[str, tuple[bytes, Obj | None]] = attrs.field(factory=dict)
    _mirrors: dict[str, Obj] = attrs.field(factory=dict)
    """By namespace/name, as the API shows them."""
    _dirty: trio.Event = attrs.field(factory=trio.Event)

    def pods(self) -> list[Obj]:
        return [pod for _, pod in self._files.values() if pod is not None]

    def on_pod(self, old: Obj | None, new: Obj | None) -> None:
        """A handler of the node's pods in the API."""
        pod = new or old
        assert pod is not None, "an event has a pod"
        if not is_mirror(pod):
            return
        if new is None:
            self._mirrors.pop(make_key(pod["metadata"]["namespace"], pod["metadata"]["name"]), None)
        else:
            self._mirrors[make_key(pod["metadata"]["namespace"], pod["metadata"]["name"])] = new
        self._dirty.set()

    def scan(self) -> None:
        """Look at the directory once: start what is new, end what is gone."""
        if not self.config.static_pod_path:
            return
        found = _read_files(Path(self.config.static_pod_path))
        for name in [name for name in self._files if name not in found]:
            self._end(self._files.pop(name)[1])
        for name, body in found.items():
            known = self._files.get(name)
            if known is not None and known[0] == body:
                continue
            try:
                pod = read_pod(body, name, self.config.node_name, self.host.now())
            except (ApiError, ValueError, KeyError) as error:
                log.error("static pod file=%s cannot be used: %s", name, error)
                pod = None
            if known is not None:
                self._end(known[1])
            self._files[name] = body, pod
            if pod is not None:
                self.start(pod)
        self._dirty.set()

    def _end(self, pod: Obj | None) -> None:
        if pod is not None:
            self.remove(pod["metadata"]["uid"])

    async def watch_files(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(self.config.timings.static_pods)
            self.scan()

    async def keep_mirrors(self) -> None:
        """Until cancelled: one for each static pod, and none for others."""
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            try:
                await self._sync_mirrors()
            except REQUEST_ERRORS as error:
                log.warning("mirrors of static pods not written: %s", error)
                self._dirty.set()
                await trio.sleep(self.config.timings.retry)

    async def _sync_mirrors(self) -> None:
        wanted = {
            make_key(pod["metadata"]["namespace"], pod["metadata"]["name"]): pod
            for pod in self.pods()
        }
        for key, mirror in list(self._mirrors.items()):
            pod = wanted.get(key)
            is_ours = pod is not None and _hash(mirror) == pod["metadata"]["uid"]
            if not is_ours or mirror["metadata"].get("deletionTimestamp"):
                await self._delete(mirror)
        for key, pod in wanted.items():
            found = self._mirrors.get(key)
            if found is None:
                found = await self._create(pod)
            if found is not None and _hash(found) == pod["metadata"]["uid"]:
                self.mirrored(pod["metadata"]["uid"], found)

    async def _create(self, pod: Obj) -> Obj | None:
        meta = pod["metadata"]
        try:
            made = await self.api.create(PODS, mirror_of(pod, self.node()))
        except ApiError as error:
            if error.code != CONFLICT:
                raise
            log.warning("there is another pod=%s/%s", meta["namespace"], meta["name"])
            return None
        self._mirrors.setdefault(make_key(meta["namespace"], meta["name"]), made)
        return made

    async def _delete(self, mirror: Obj) -> None:
        meta = mirror["metadata"]
        try:
            await self.api.delete(
                PODS, meta["name"], meta["namespace"], grace_period_seconds=0, uid=meta["uid"]
            )
        except ApiError as error:
            if error.code not in (NOT_FOUND, CONFLICT):
                raise
        self._mirrors.pop(make_key(meta["namespace"], meta["name"]), None)


def _hash(mirror: Obj) -> str:
    return str((mirror["metadata"].get("annotations") or {}).get(MIRROR, ""))


def _read_files(directory: Path) -> dict[str, bytes]:
    """Manifests by file name; a directory that is not there is empty. Few and small: no thread."""
    found = {}
    try:
        paths = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for path in paths:
        if path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file():
            try:
                with path.open("rb") as file:
                    found[path.name] = file.read(FILE_BYTES_MAX)
            except OSError as error:
                log.error("static pod file=%s cannot be read: %s", path, error)
    return found
