"""The images at hand: pulled from registries, loaded from archives, or built in.

Owns one directory, which all kubelets of a cluster on this machine share:

    images/HEX.json       one image: names, configuration, layers from the lowest up
    layers/HEX/           one unpacked layer, named by the digest of its tar
    temporary/            what is being made; renamed into place when whole
    locks/                held by who pulls an image
    used/NODE.json        which images a node's containers use, and until when they did

Every change is one rename, so that several processes may read and load at the same time. Nothing
unpacked is ever written again: containers get an overlay on top.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import attrs

from k8slite.kubelet.images.archive import Archive, BadArchive, ImageSource, open_archive
from k8slite.kubelet.images.builtin import make_builtin
from k8slite.kubelet.images.layers import unpack_layer
from k8slite.kubelet.images.reference import Reference, parse_reference

BUILTIN = "docker.io/library/busybox"
ABANDONED_SECONDS = 24 * 3600.0
UNTAKEN = "k8slite-builtin"  # a tag nobody loads


@attrs.frozen
class ImageConfig:
    """What an image says about running it, as in the OCI image specification."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""


@attrs.frozen
class StoredImage:
    """`layers` are directories, the lowest first; `programs` go in front of PATH where a process
    runs without the image's root (built-in image only). `pulled`: it came from a registry, which
    has it under `digest`."""

    id: str
    digest: str
    names: tuple[str, ...]
    size_bytes: int
    config: ImageConfig
    layers: tuple[Path, ...]
    programs: str = ""
    pulled: bool = False

    def reference_of(self, name: str) -> str:
        """What a container's status tells of it: where it can be had again, else its id."""
        if not self.pulled:
            return self.id
        return f"{parse_reference(name).repository}@{self.digest}"


def config_of(document: dict[str, Any]) -> ImageConfig:
    """The part of an image configuration we obey. Raises BadArchive on odd types."""
    inner = document.get("config") or {}

    def strings(key: str) -> tuple[str, ...]:
        value = inner.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadArchive(f"the image's configuration has {key} that is no list of strings")
        return tuple(value)

    def string(key: str) -> str:
        value = inner.get(key) or ""
        if not isinstance(value, str):
            raise BadArchive(f"the image's configuration has {key} that is no string")
        return value

    return ImageConfig(
        strings("Entrypoint"),
        strings("Cmd"),
        strings("Env"),
        string("WorkingDir"),
        string("User"),
        string("StopSignal"),
    )


class ImageStore:
    """All calls are synchronous file work; slow ones (`load`) belong in a thread."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory).absolute()
        self._images = self.directory / "images"
        self._layers = self.directory / "layers"
        self.temporary = self.directory / "temporary"
        self.locks = self.directory / "locks"
        for path in (self._images, self._layers, self.temporary, self.locks):
            path.mkdir(parents=True, exist_ok=True)
        self._root = os.geteuid() == 0
        self._cache: tuple[list[tuple[str, int, int]], list[StoredImage]] | None = None
        self._builtin: StoredImage | None = None

    # ------------------------------------------------------------ reading

    def images(self) -> list[StoredImage]:
        """Loaded images, by name."""
        # Every change is a rename: inode and time together tell, either alone may come again.
        stamp = sorted(
            (entry.name, entry.inode(), entry.stat().st_mtime_ns)
            for entry in os.scandir(self._images)
        )
        if self._cache is None or self._cache[0] != stamp:
            found = [self._read(path) for path in sorted(self._images.glob("*.json"))]
            images = [image for image in found if image is not None]
            self._cache = (stamp, sorted(images, key=lambda image: (image.names, image.id)))
        return list(self._cache[1])

    def _read(self, path: Path) -> StoredImage | None:
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            return None  # removed while we looked
        return StoredImage(
            id=stored["id"],
            digest=stored["digest"],
            names=tuple(stored["names"]),
            size_bytes=stored["size_bytes"],
            config=config_of({"config": stored["config"]}),
            layers=tuple(self._layers / name for name in stored["layers"]),
            pulled=stored.get("pulled", False),
        )

    def resolve(self, text: str) -> StoredImage | None:
        """The image of that name, digest or id. Raises InvalidReference."""
        images = self.images()
        for image in images:
            if text in (image.id, image.id.removeprefix("sha256:")):
                return image
        reference = parse_reference(text)
        for image in images:
            if str(reference) in image.names:
                return image
            if reference.digest and reference.digest in (image.digest, image.id):
                return image
        if reference.repository == BUILTIN and not reference.digest:
            return self.builtin(reference)
        return None

    def by_digest(self, digest: str) -> StoredImage | None:
        """The image that was pulled with that digest."""
        return next((i for i in self.images() if i.pulled and i.digest == digest), None)

    def has_layer(self, diff_id: str) -> bool:
        return self._layer(diff_id).is_dir()

    def _layer(self, diff_id: str) -> Path:
        return self._layers / diff_id.removeprefix("sha256:")[:32]

    def is_whole(self, image: StoredImage) -> bool:
        """Whether all its layers are there."""
        return all(layer.is_dir() for layer in image.layers)

    def here_since(self, image: StoredImage) -> float:
        """Wall-clock seconds; 0.0 for one that is gone."""
        try:
            return self._path(image.id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _path(self, image_id: str) -> Path:
        return self._images / f"{image_id.removeprefix('sha256:')}.json"

    def builtin(self, reference: Reference) -> StoredImage | None:
        """The image made of this machine's own busybox; it answers to any tag."""
        if self._builtin is None:
            layer = make_builtin(self._layers, self.temporary)
            self._builtin = StoredImage(
                id=f"sha256:{layer.digest}",
                digest="",
                names=(),
                size_bytes=layer.size_bytes,
                config=ImageConfig(
                    command=("sh",),
                    env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",),
                ),
                layers=(layer.path,) if layer.is_root else (),
                programs=str(layer.path / "bin"),
            )
        return attrs.evolve(self._builtin, names=(str(reference),))

    def builtin_programs(self) -> str:
        """The directory of the built-in image's programs, for processes on the machine."""
        found = self.resolve(f"{BUILTIN}:{UNTAKEN}")
        return "" if found is None else found.programs

    # ------------------------------------------------------------ changing

    def load(self, path: str | Path, *, name: str = "", pulled: str = "") -> list[StoredImage]:
        """Load all images of an archive; `name` names one that has no name of its own. `pulled`:
        the digest under which a registry has it.

        Layers that are there already are not unpacked again. Raises OSError, BadArchive,
        InvalidReference; then nothing has changed.
        """
        with open_archive(path) as archive:
            sources = archive.images()
            loaded = []
            for source in sources:
                given = source.names or ((name,) if name else ())
                if not given:
                    raise BadArchive(f"{path}: an image without a name; give it one with --name")
                names = tuple(str(parse_reference(text)) for text in given)
                loaded.append(self._load_image(archive, source, names, pulled))
        return loaded

    def add_name(self, image: StoredImage, reference: Reference) -> StoredImage:
        """One more name for an image; it moves there."""
        return self._name(image, (str(reference),))

    def _load_image(
        self, archive: Archive, source: ImageSource, names: tuple[str, ...], pulled: str
    ) -> StoredImage:
        config_of(source.config)  # refuse before unpacking
        layers, size = [], 0
        for layer in source.layers:
            directory = self._layer(layer.diff_id)
            if not directory.exists():
                with self._making() as temporary:
                    with archive.open_layer(layer) as stream:
                        if self._root:
                            content = temporary / "content"
                            content.mkdir(mode=0o755)
                            amount = unpack_layer(stream, content, owners=True)
                        else:
                            # Without root there is no overlay to use it in: checked, not kept.
                            amount = sum(
                                m.size
                                for m in tarfile.open(fileobj=stream, mode="r|")  # noqa: SIM115
                            )
                            (temporary / "content").mkdir()
                    (directory.with_suffix(".size")).write_text(str(amount))
                    self._place(temporary / "content", directory)
            with contextlib.suppress(FileNotFoundError, ValueError):
                size += int(directory.with_suffix(".size").read_text())
            layers.append(directory)
        image = StoredImage(
            id=source.id,
            digest=pulled or source.digest,
            names=(),
            size_bytes=size,
            config=config_of(source.config),
            layers=tuple(layers),
            pulled=bool(pulled),
        )
        return self._name(image, names)

    def _name(self, image: StoredImage, names: tuple[str, ...]) -> StoredImage:
        """Write the image under these names and those that it has."""
        for other in self.images():  # a name moves to the newest image
            if other.id != image.id and set(other.names) & set(names):
                kept = tuple(n for n in other.names if n not in names)
                self._write(attrs.evolve(other, names=kept))
        mine = self._read(self._path(image.id))
        merged = tuple(dict.fromkeys((*names, *(mine.names if mine else ()))))
        image = attrs.evolve(image, names=merged)
        self._write(image)
        return image

    def _write(self, image: StoredImage) -> None:
        document = {
            "id": image.id,
            "digest": image.digest,
            "names": image.names,
            "size_bytes": image.size_bytes,
            "layers": [path.name for path in image.layers],
            "pulled": image.pulled,
            "config": {
                "Entrypoint": image.config.entrypoint,
                "Cmd": image.config.command,
                "Env": image.config.env,
                "WorkingDir": image.config.working_dir,
                "User": image.config.user,
                "StopSignal": image.config.stop_signal,
            },
        }
        with self._making() as temporary:
            (temporary / "image.json").write_text(json.dumps(document))
            os.replace(temporary / "image.json", self._path(image.id))

    def sweep(self, now: float) -> None:
        """Remove what processes that were killed have left half-made."""
        for entry in os.scandir(self.temporary):
            if now - entry.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(entry.path, ignore_errors=True)

    @contextlib.contextmanager
    def _making(self) -> Any:
        path = Path(tempfile.mkdtemp(dir=self.temporary))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _place(self, made: Path, directory: Path) -> None:
        with contextlib.suppress(FileExistsError):  # another process was first: same content
            try:
                made.rename(directory)
            except OSError:
                if not directory.exists():
                    raise

    def remove(self, text: str) -> bool:
        """Forget a name, and the image with its last name; layers no image needs are deleted.

        A running container keeps its overlay: call this for images that none uses (`uses.py`).
        """
        image = next((i for i in self.images() if self.is_named(i, text)), None)
        if image is None:
            return False
        gone = text if text in (image.id, image.id[7:]) else str(parse_reference(text))
        kept = tuple(name for name in image.names if name != gone)
        if kept and gone in image.names:
            self._write(attrs.evolve(image, names=kept))
            return True
        self._path(image.id).unlink(missing_ok=True)
        self._cache = None
        used = {layer for other in self.images() for layer in other.layers}
        for layer in image.layers:
            if layer not in used:
                shutil.rmtree(layer, ignore_errors=True)
                layer.with_suffix(".size").unlink(missing_ok=True)
        return True

    def is_named(self, image: StoredImage, text: str) -> bool:
        """Whether the text is its id or one of its names. Raises InvalidReference."""
        if text in (image.id, image.id.removeprefix("sha256:")):
            return True
        return str(parse_reference(text)) in image.names
