"""The kubelet's end of pulling: one process for each image, and a bound on how many.

Who asks for an image that is being pulled waits for that pull. A pull goes on although the pod that
asked is gone: the next one will want the image too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import attrs
import orjson
import trio

from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.store import ImageStore, StoredImage

__all__ = ["PullError", "Puller", "docker_config_path"]

PULLS_MAX: Final = 3


class PullError(Exception):
    """Why an image cannot be had; for users."""


@attrs.define
class _Pull:
    done: trio.Event = attrs.field(factory=trio.Event)
    id: str = ""
    error: str = ""


class Puller:
    """`command` comes before the program: a way into the network where registries are."""

    def __init__(
        self, store: ImageStore, nursery: trio.Nursery, command: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._nursery = nursery
        self._command = list(command)
        self._running: dict[tuple[str, tuple[Credential, ...]], _Pull] = {}
        self._slots = trio.CapacityLimiter(PULLS_MAX)

    async def pull(self, image: str, credentials: Sequence[Credential]) -> StoredImage:
        """The image as its registry has it now. Raises PullError."""
        key = image, tuple(credentials)
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Pull()
            self._nursery.start_soon(self._run, key, running)
        await running.done.wait()
        found = None if running.error else self._store.resolve(running.id)
        if found is None:
            raise PullError(running.error or f"image {image} was removed while it was pulled")
        return found

    async def _run(self, key: tuple[str, tuple[Credential, ...]], running: _Pull) -> None:
        request = {
            "store": str(self._store.directory),
            "image": key[0],
            "credentials": [attrs.asdict(each) for each in key[1]],
        }
        try:
            async with self._slots:
                done = await trio.run_process(
                    [*self._command, sys.executable, "-m", "k8slite.kubelet.images.child"],
                    stdin=orjson.dumps(request),
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
        except (OSError, subprocess.SubprocessError) as error:
            running.error = f"the puller cannot be started: {error}"
        else:
            try:
                answer = orjson.loads(done.stdout)
                running.id, running.error = answer.get("id", ""), answer.get("error", "")
            except orjson.JSONDecodeError:
                words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                running.error = f"the puller ended with {done.returncode}: {words}"
        finally:
            del self._running[key]
            running.done.set()


def docker_config_path() -> str:
    """The user's docker `config.json`; it need not exist."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(directory, "config.json")
