"""Where things lie below the kubelet's directory. Pure.

pods/UID/volumes/...            the pod's volumes
pods/UID/containers/NAME/N      the termination message of the container's N-th run
pods/UID/etc/{hosts,resolv.conf}
logs/NAMESPACE_NAME_UID/CONTAINER/N.log
runtime/, network/              the runtime's and the pod network's own
"""

from __future__ import annotations

from pathlib import Path

import attrs

from k8slite.api.meta import Obj


@attrs.frozen
class Paths:
    root: Path

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def pod(self, uid: str) -> Path:
        return self.pods / uid

    def volumes(self, uid: str) -> Path:
        return self.pod(uid) / "volumes"

    def etc(self, uid: str) -> Path:
        return self.pod(uid) / "etc"

    def termination(self, uid: str, container: str, attempt: int) -> Path:
        return self.pod(uid) / "containers" / container / str(attempt)

    def pod_logs(self, namespace: str, name: str, uid: str) -> Path:
        return self.logs / f"{namespace}_{name}_{uid}"

    def log(self, pod: Obj, container: str, attempt: int) -> Path:
        meta = pod["metadata"]
        directory = self.pod_logs(meta["namespace"], meta["name"], meta["uid"])
        return directory / container / f"{attempt}.log"
