"""The image calls of `Runtime`, for runtimes whose images lie in an `ImageStore`."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.puller import Puller, PullError
from k8slite.kubelet.images.store import ImageStore, StoredImage
from k8slite.kubelet.runtime.interface import Image, RuntimeFailure

__all__ = ["Images"]


@attrs.frozen
class Images:
    store: ImageStore
    puller: Puller

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


def _told(image: StoredImage) -> Image:
    """With names by digest, if it was pulled."""
    by_digest = (image.reference_of(name) for name in image.names if image.pulled)
    return Image(image.id, tuple(dict.fromkeys((*by_digest, *image.names))), image.size_bytes)
