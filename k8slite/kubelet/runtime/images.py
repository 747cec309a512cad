"""The image calls of `Runtime`, for runtimes whose images lie in an `ImageStore`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.garbage import Candidate, Plan, Policy, make_plan
from k8slite.kubelet.images.merge import merge_layers
from k8slite.kubelet.images.puller import Puller, PullError
from k8slite.kubelet.images.store import ImageStore, StoredImage
from k8slite.kubelet.images.uses import Uses
from k8slite.kubelet.runtime.interface import Image, ImageMissing, RuntimeFailure

__all__ = ["Images"]


@attrs.frozen
class Images:
    store: ImageStore
    puller: Puller
    uses: Uses

    def status(self, image: str) -> Image | None:
        found = self.store.resolve(image)
        return None if found is None else _told(found)

    async def pull(self, image: str, credentials: Sequence[Credential]) -> Image:
        """What was loaded by hand, or is built in, is not looked for anywhere else.

        Raises RuntimeFailure.
        """
        found = self.store.resolve(image)
        if found is None or found.pulled:
            try:
                found = await self.puller.pull(image, credentials)
            except PullError as error:
                raise RuntimeFailure(str(error)) from None
        return _told(found)

    def list(self) -> list[Image]:
        return [_told(image) for image in self.store.images()]

    def use(self, image: str, now: float) -> StoredImage:
        """For a new container. Raises ImageMissing, OSError."""
        found = self.store.resolve(image)
        if found is not None:
            self.uses.add(found.id, now)
            found = self.store.resolve(image)  # it may have been removed just before
        if found is None:
            raise ImageMissing(f"image {image} is not on this node")
        return found

    def unpack(self, image: str, directory: Path, now: float) -> None:
        """See `Runtime.unpack_image`."""
        found = self.use(image, now)
        if os.geteuid() != 0 or not found.layers:
            raise RuntimeFailure(f"image {image} has no files here: without root none are kept")
        making = directory.with_name(f"{directory.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        merge_layers(found.layers, making)
        making.rename(directory)

    def note(self, in_use: Iterable[str], now: float) -> None:
        """What this node's containers use, as their statuses name it. Raises OSError."""
        named = set(in_use)
        mine = [
            each.id
            for each in self.store.images()
            if named & {each.id, *map(each.reference_of, each.names)}
        ]
        self.uses.note(mine, now)

    def collect(self, policy: Policy, in_use: Iterable[str], now: float) -> Plan:
        """Remove what is in nobody's use, if the disk is that full; `in_use` as for `note`.

        Raises OSError.
        """
        self.note(in_use, now)
        images, used = self.store.images(), self.uses.in_use()
        stat = os.statvfs(self.store.directory)
        plan = make_plan(
            policy,
            capacity_bytes=stat.f_blocks * stat.f_frsize,
            available_bytes=stat.f_bavail * stat.f_frsize,
            candidates=[
                Candidate(each.id, each.size_bytes, self.store.here_since(each), not each.pulled)
                for each in images
                if each.id not in used
            ],
            last_used=self.uses.last_used(),
            now=now,
        )
        for image in plan.remove:
            self.store.remove(image)
        self.store.sweep(now)
        return plan


def _told(image: StoredImage) -> Image:
    """With names by digest, if it was pulled."""
    by_digest = (image.reference_of(name) for name in image.names if image.pulled)
    return Image(image.id, tuple(dict.fromkeys((*by_digest, *image.names))), image.size_bytes)
