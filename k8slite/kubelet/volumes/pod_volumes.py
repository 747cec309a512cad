"""The volumes of one pod: made before its sandbox, renewed while it runs, mounted in containers."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.dns import domain_of, hostname_of, hosts_file, resolv_conf
from k8slite.kubelet.containers.expansion import expand
from k8slite.kubelet.containers.objects import TokenCache, fetch, fetch_claims
from k8slite.kubelet.containers.problem import StartProblem
from k8slite.kubelet.containers.pulling import ensure_image
from k8slite.kubelet.context import Context
from k8slite.kubelet.runtime.interface import ConfigFailure, Mount, RuntimeFailure
from k8slite.kubelet.volumes.volume_files import realise
from k8slite.kubelet.volumes.volumes import (
    Content,
    Files,
    HostPath,
    ImageRoot,
    content_of,
    object_references,
    token_requests,
)

KUBELET_DIRECTORY = "/var/lib/kubelet"
PROPAGATION = {"HostToContainer": "slave", "Bidirectional": "shared"}


class VolumeFailure(ConfigFailure):
    """A volume could not be made; the text is the event's."""


class PodVolumes:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._tokens = TokenCache(context.api, context.host)
        self._paths: dict[str, Path] = {}
        self._read_only: frozenset[str] = frozenset()

    async def make(self, pod: Obj, pod_ip: str) -> None:
        """Make all volumes, or bring them up to date.

        Raises VolumeFailure, ApiError, ClientError.
        """
        contents = await self._contents(pod, pod_ip)
        self._read_only = frozenset(
            n for n, c in contents.items() if isinstance(c, (Files, ImageRoot))
        )
        if not self._context.on_disk:
            return
        directory = self._context.paths.volumes(pod["metadata"]["uid"])
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        for name, content in contents.items():
            if isinstance(content, HostPath):
                content = attrs.evolve(content, path=self._own(content.path))
            try:
                if isinstance(content, ImageRoot):
                    self._paths[name] = await self._image_root(pod, directory, name, content)
                    continue
                self._paths[name] = await trio.to_thread.run_sync(
                    lambda n, c: realise(directory, n, c, group=group), name, content
                )
            except (OSError, ConfigFailure) as error:
                raise _failure(name, error) from None

    def _own(self, path: str) -> str:
        """Where a node's agents look for its kubelet: this node's directory, for the machine may
        carry several."""
        if path == KUBELET_DIRECTORY or path.startswith(f"{KUBELET_DIRECTORY}/"):
            return self._context.config.root_dir + path.removeprefix(KUBELET_DIRECTORY)
        return path

    async def _image_root(self, pod: Obj, directory: Path, name: str, content: ImageRoot) -> Path:
        """Made once: the pod keeps what it began with. Raises VolumeFailure, OSError."""
        path = directory / "kubernetes.io~image" / name
        if path.exists():
            return path
        context = self._context
        try:
            await ensure_image(context, pod, content.reference, content.pull_policy, "")
            path.parent.mkdir(parents=True, exist_ok=True)
            await context.runtime.unpack_image(content.reference, path)
        except (StartProblem, RuntimeFailure) as error:
            raise _failure(name, error) from None
        return path

    async def _contents(self, pod: Obj, pod_ip: str) -> dict[str, Content]:
        volumes = pod["spec"].get("volumes") or ()
        if not volumes:
            return {}
        api = self._context.api
        namespace = pod["metadata"]["namespace"]
        wanted = [r for volume in volumes for r in object_references(volume)]
        sources = await fetch(api, namespace, wanted)
        try:
            claims = await fetch_claims(api, pod)
        except ConfigFailure as error:
            raise VolumeFailure(str(error)) from None
        requests = [r for volume in volumes for r in token_requests(volume)]
        tokens = await self._tokens.get(pod, requests)
        contents = {}
        for volume in volumes:
            try:
                contents[volume["name"]] = content_of(
                    pod,
                    volume,
                    sources=sources,
                    tokens=tokens,
                    claims=claims,
                    node=self._context.node,
                    pod_ip=pod_ip,
                )
            except ConfigFailure as error:
                raise _failure(volume["name"], error) from None
        return contents

    def mounts(
        self, pod: Obj, container: Obj, env: dict[str, str], pod_ip: str, attempt: int
    ) -> tuple[tuple[Mount, ...], str]:
        """The container's mounts, and the file of its termination message.

        Synchronous file work, for a thread. Raises ConfigFailure, OSError.
        """
        mounts = [self._mount(entry, env) for entry in container.get("volumeMounts") or ()]
        taken = {mount.container_path for mount in mounts}
        uid = pod["metadata"]["uid"]
        message = self._context.paths.termination(uid, container["name"], attempt)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.touch(mode=0o666)
        message.chmod(0o666)
        path = container.get("terminationMessagePath") or "/dev/termination-log"
        if path not in taken:
            mounts.append(Mount(str(message), path))
        for name, text in self._etc(pod, pod_ip).items():
            if f"/etc/{name}" not in taken:
                file = self._context.paths.etc(uid) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if not file.exists():
                    file.write_text(text)
                mounts.append(Mount(str(file), f"/etc/{name}"))
        return tuple(mounts), str(message)

    def _mount(self, entry: Obj, env: dict[str, str]) -> Mount:
        name = entry["name"]
        if name not in self._paths:
            raise ConfigFailure(f'cannot find volume "{name}" to mount into container')
        path = self._paths[name]
        sub = entry.get("subPath") or expand(entry.get("subPathExpr") or "", env)
        if sub:
            path = _below(path, sub)
        return Mount(
            str(path),
            entry["mountPath"],
            read_only=bool(entry.get("readOnly")) or name in self._read_only,
            propagation=PROPAGATION.get(entry.get("mountPropagation") or "", "private"),
        )

    def _etc(self, pod: Obj, pod_ip: str) -> dict[str, str]:
        config = self._context.config
        hostname = hostname_of(pod, config.node_name)
        domain = domain_of(pod, config.cluster_domain)
        try:
            machine = Path("/etc/resolv.conf").read_text()
        except OSError:
            machine = ""
        return {
            "hosts": hosts_file(pod, ip=pod_ip, hostname=hostname, domain=domain),
            "hostname": hostname + "\n",
            "resolv.conf": resolv_conf(
                pod,
                cluster_dns=config.cluster_dns,
                cluster_domain=config.cluster_domain,
                machine=machine,
            ),
        }


def _below(path: Path, sub: str) -> Path:
    """A path inside the volume, made if need be. A link in the volume must not lead out of it."""
    target = path / sub
    if ".." in Path(sub).parts or Path(sub).is_absolute():
        raise ConfigFailure(f'subPath "{sub}" must not contain ".." and must be relative')
    if not target.resolve().is_relative_to(path.resolve()):
        raise ConfigFailure(f'subPath "{sub}" leads out of the volume')
    if not target.exists():
        target.mkdir(parents=True, mode=0o755)
    return target.resolve()


def _failure(volume: str, error: Exception) -> VolumeFailure:
    return VolumeFailure(f'MountVolume.SetUp failed for volume "{volume}" : {error}')
