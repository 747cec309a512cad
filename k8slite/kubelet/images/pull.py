"""Pull one image: from a registry into an OCI layout on disk, and from there into the store.

What is written down is checked by its digest twice: the manifest here, all else by the store as it
loads the layout. Layers that the store has are not fetched. One process pulls an image at a time;
the next one finds it there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import trio

from k8slite.kubelet.images.archive import BadArchive, architecture, blob_path, is_for_us
from k8slite.kubelet.images.credentials import Credential
from k8slite.kubelet.images.reference import Reference
from k8slite.kubelet.images.registry import Registry, RegistryError
from k8slite.kubelet.images.store import ImageStore, StoredImage
from raftkv.host import Net

__all__ = ["Progress", "PullFailed", "pull"]

LAYERS_AT_ONCE: Final = 3
ATTEMPTS: Final = 3
RETRY_SECONDS: Final = 1.0
INDEXES_MAX: Final = 4
"""How deep lists of manifests may lie in each other."""


class PullFailed(Exception):
    """Why the image cannot be had; for users."""


class Progress(NamedTuple):
    """How far one layer is. `total` 0: not known."""

    digest: str
    done: int
    total: int


Report = Callable[[Progress], Any]


async def pull(
    store: ImageStore,
    reference: Reference,
    credentials: Sequence[Credential],
    net: Net,
    report: Report = lambda progress: None,
) -> StoredImage:
    """The image, newly fetched where the registry has another one than we.

    `credentials` are tried in turn; none: nobody in particular. Raises PullFailed.
    """
    problems: list[str] = []
    for credential in credentials or (None,):
        registry = Registry(net, reference.repository, credential)
        try:
            async with _lock(store, reference):
                return await _pull(store, reference, registry, report)
        except RegistryError as error:
            problems.append(str(error))
        except (BadArchive, OSError) as error:
            raise PullFailed(f'failed to pull and unpack image "{reference}": {error}') from error
    told = "; ".join(dict.fromkeys(problems))
    raise PullFailed(f'failed to pull and unpack image "{reference}": {told}')


@asynccontextmanager
async def _lock(store: ImageStore, reference: Reference) -> AsyncIterator[None]:
    name = hashlib.sha256(str(reference).encode()).hexdigest()[:32]
    handle = os.open(store.locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await trio.sleep(0.2)
        yield
    finally:
        os.close(handle)


async def _pull(
    store: ImageStore, reference: Reference, registry: Registry, report: Report
) -> StoredImage:
    digest, body = await _manifest(registry, reference.digest or reference.tag)
    top = digest
    for _ in range(INDEXES_MAX):
        document = _parse(digest, body)
        if "manifests" not in document:
            break
        digest, body = await _manifest(registry, _choose(reference, document))
    else:
        raise BadArchive(f"{reference}: manifests lie more than {INDEXES_MAX} deep")
    known = store.by_digest(top)
    if known is not None and store.is_whole(known):
        return store.add_name(known, reference)
    with _layout(store) as layout:
        await _fetch_all(store, registry, layout, document, report)
        _write(layout / blob_path(digest), body)
        index = {"schemaVersion": 2, "manifests": [{"digest": digest}]}
        _write(layout / "index.json", orjson.dumps(index))
        [image] = await trio.to_thread.run_sync(
            lambda: store.load(layout, name=str(reference), pulled=top)
        )
        return image


@contextmanager
def _layout(store: ImageStore) -> Iterator[Path]:
    """An empty directory, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=store.temporary, prefix="pull-") as name:
        yield Path(name)


async def _manifest(registry: Registry, wanted: str) -> tuple[str, bytes]:
    """(digest, content), the one of the other."""
    found = await _retried(lambda: registry.manifest(wanted))
    digest = f"sha256:{hashlib.sha256(found.body).hexdigest()}"
    expected = wanted if wanted.startswith("sha256:") else found.digest
    if expected.startswith("sha256:") and expected != digest:
        raise BadArchive(f"the manifest {wanted} has digest {digest}, not {expected}")
    return digest, found.body


def _parse(digest: str, body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadArchive(f"the manifest {digest} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schemaVersion") != 2:
        raise BadArchive(f"the manifest {digest} is not of schema version 2")
    return document


def _choose(reference: Reference, index: dict[str, Any]) -> str:
    """The manifest for this machine."""
    for entry in index["manifests"]:
        if is_for_us(entry):
            digest = str(entry.get("digest"))
            blob_path(digest)
            return digest
    raise BadArchive(f"{reference}: no match for platform linux/{architecture()} in the manifest")


async def _fetch_all(
    store: ImageStore, registry: Registry, layout: Path, manifest: dict[str, Any], report: Report
) -> None:
    """Configuration and layers into the layout; those that the store has are left out."""
    try:
        config = manifest["config"]
        wanted = [(str(each["digest"]), int(each.get("size") or 0)) for each in manifest["layers"]]
        config_digest, config_size = str(config["digest"]), int(config.get("size") or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise BadArchive(f"malformed manifest: {error!r}") from None
    await _fetch(registry, layout, config_digest, config_size, lambda progress: None)
    missing = dict(_missing(store, wanted, (layout / blob_path(config_digest)).read_bytes()))
    slots = trio.CapacityLimiter(LAYERS_AT_ONCE)

    async def fetch(digest: str, size: int) -> None:
        async with slots:
            await _fetch(registry, layout, digest, size, report)

    try:
        async with trio.open_nursery() as nursery:
            for digest, size in missing.items():
                nursery.start_soon(fetch, digest, size)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _missing(
    store: ImageStore, layers: list[tuple[str, int]], config: bytes
) -> Iterator[tuple[str, int]]:
    """Layers that the store has not unpacked yet."""
    try:
        diff_ids = [str(each) for each in orjson.loads(config)["rootfs"]["diff_ids"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadArchive(f"malformed configuration of the image: {error!r}") from None
    if len(diff_ids) != len(layers):
        raise BadArchive(f"{len(layers)} layers, but the configuration lists {len(diff_ids)}")
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        if not store.has_layer(diff_id):
            yield layer


async def _fetch(registry: Registry, layout: Path, digest: str, size: int, report: Report) -> None:
    """One blob into the layout, its digest checked; what a lost connection left is gone on from."""
    path = layout / blob_path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        sha = hashlib.sha256()

        def write(data: bytes) -> None:
            file.write(data)
            sha.update(data)
            if size and file.tell() > size:
                raise BadArchive(f"the blob {digest} is larger than its {size} bytes")
            report(Progress(digest, file.tell(), size))

        await _retried(lambda: registry.blob(digest, file.tell(), write))
    if f"sha256:{sha.hexdigest()}" != digest:
        raise BadArchive(f"the blob {digest} is damaged: it has digest sha256:{sha.hexdigest()}")


async def _retried(call: Callable[[], Any]) -> Any:
    for attempt in range(ATTEMPTS):
        try:
            return await call()
        except RegistryError as error:
            if not error.transient or attempt == ATTEMPTS - 1:
                raise
            await trio.sleep(RETRY_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
