"""Image archives: OCI layouts (directory or tar) and what `docker save` writes.

Reads and checks, never writes: an `Archive` lists images as configuration and layers, and opens
each blob as a stream that verifies its digest at the end. Everything in an archive is input from
outside: names that leave it, wrong digests and odd shapes raise BadArchive with what and where.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import platform
import re
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import attrs
import orjson

JSON_MAX = 16 * 1024 * 1024
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
REF_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
HEX = re.compile(r"[0-9a-f]{64}")


class BadArchive(Exception):
    """The file is no image archive, or not to be trusted; the text is for users."""


@attrs.frozen
class LayerSource:
    """One layer: where it lies, the digest of its bytes ("" unknown), and of its tar."""

    path: str
    digest: str
    diff_id: str
    media_type: str = ""


@attrs.frozen
class ImageSource:
    """One image of an archive. `config` is the parsed configuration, `id` its digest."""

    id: str
    digest: str
    names: tuple[str, ...]
    config: dict[str, Any]
    layers: tuple[LayerSource, ...]


class Archive:
    """A directory or tar file with images. Made by `open_archive`."""

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        self._path = path
        self._tar = tar
        self._members: dict[str, tarfile.TarInfo] = {}
        if tar is not None:
            for member in tar:
                name = str(PurePosixPath(member.name))
                self._members[name.removeprefix("./")] = member

    def has(self, name: str) -> bool:
        if self._tar is not None:
            return name in self._members
        return (self._path / name).is_file()

    def open(self, name: str) -> IO[bytes]:
        """A file of the archive. Raises BadArchive for one that is not there, or not inside."""
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise BadArchive(f"{self._path}: {name!r} points outside the archive")
        if self._tar is None:
            inner = (self._path / name).resolve()
            if not inner.is_relative_to(self._path.resolve()) or not inner.is_file():
                raise BadArchive(f"{self._path}: no file {name!r}")
            return inner.open("rb")
        member = self._members.get(name)
        if member is not None and (member.issym() or member.islnk()):
            # `docker save` of old links layers that occur twice
            base = PurePosixPath(name).parent if member.issym() else PurePosixPath()
            target = _normal(base / member.linkname)
            member = self._members.get(target)
        if member is None or not member.isreg():
            raise BadArchive(f"{self._path}: no file {name!r}")
        stream = self._tar.extractfile(member)
        assert stream is not None, "regular members have content"
        return stream

    def json(self, name: str, digest: str = "") -> Any:
        with self.open(name) as stream:
            data = stream.read(JSON_MAX + 1)
        if len(data) > JSON_MAX:
            raise BadArchive(f"{self._path}: {name} is larger than {JSON_MAX} bytes")
        if digest:
            check_digest(f"{self._path}: {name}", hashlib.sha256(data).hexdigest(), digest)
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise BadArchive(f"{self._path}: {name} is not JSON: {error}") from None

    def images(self) -> list[ImageSource]:
        """All images in it for this machine's architecture."""
        try:
            if self.has("manifest.json"):
                found = [self._docker_image(entry) for entry in self.json("manifest.json")]
            elif self.has("index.json"):
                found = list(self._oci_images(self.json("index.json"), ()))
            else:
                raise BadArchive(
                    f"{self._path}: neither manifest.json (docker save) nor index.json (OCI layout)"
                )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise BadArchive(f"{self._path}: malformed manifest: {error!r}") from None
        if not found:
            raise BadArchive(f"{self._path}: no image for linux/{architecture()}")
        return found

    def _docker_image(self, entry: dict[str, Any]) -> ImageSource:
        path = entry["Config"]
        stem = PurePosixPath(path).name.removesuffix(".json")
        with self.open(path) as stream:
            hexdigest = hashlib.sha256(stream.read(JSON_MAX)).hexdigest()
        if HEX.fullmatch(stem):
            check_digest(f"{self._path}: {path}", hexdigest, f"sha256:{stem}")
        config = self.json(path)
        diff_ids = config["rootfs"]["diff_ids"]
        self._same_length(entry["Layers"], diff_ids)
        return ImageSource(
            id=f"sha256:{hexdigest}",
            digest="",
            names=tuple(entry.get("RepoTags") or ()),
            config=config,
            layers=tuple(
                LayerSource(path, "", diff_id)
                for path, diff_id in zip(entry["Layers"], diff_ids, strict=True)
            ),
        )

    def _oci_images(self, index: dict[str, Any], names: tuple[str, ...]) -> Iterator[ImageSource]:
        for entry in index["manifests"]:
            notes = entry.get("annotations") or {}
            own = names or tuple(notes[key] for key in REF_NAMES if key in notes)[:1]
            if not is_for_us(entry):
                continue
            document = self.json(blob_path(entry["digest"]), entry["digest"])
            if "manifests" in document:
                yield from self._oci_images(document, own)
            else:
                yield self._oci_image(document, entry["digest"], own)

    def _oci_image(
        self, manifest: dict[str, Any], digest: str, names: tuple[str, ...]
    ) -> ImageSource:
        config_digest = manifest["config"]["digest"]
        config = self.json(blob_path(config_digest), config_digest)
        diff_ids = config["rootfs"]["diff_ids"]
        self._same_length(manifest["layers"], diff_ids)
        return ImageSource(
            id=config_digest,
            digest=digest,
            names=names,
            config=config,
            layers=tuple(
                LayerSource(
                    blob_path(layer["digest"]), layer["digest"], diff_id, layer.get("mediaType", "")
                )
                for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True)
            ),
        )

    def _same_length(self, layers: list[Any], diff_ids: list[str]) -> None:
        if len(layers) != len(diff_ids):
            raise BadArchive(
                f"{self._path}: {len(layers)} layers, but the configuration lists {len(diff_ids)}"
            )
        for diff_id in diff_ids:
            blob_path(diff_id)

    @contextmanager
    def open_layer(self, layer: LayerSource) -> Iterator[HashingReader]:
        """The layer's tar, uncompressed.

        When the block ends without an error everything has been read, and the digests agree;
        else BadArchive is raised, and what was made from the layer must be thrown away.
        """
        where = f"{self._path}: layer {layer.path}"
        with self.open(layer.path) as raw:
            outer = HashingReader(raw)
            try:
                with _uncompressed(outer, where) as plain:
                    inner = HashingReader(plain)
                    yield inner
                    while inner.read(1 << 20):
                        pass
                while outer.read(1 << 20):
                    pass
            except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
                raise BadArchive(f"{where} is damaged: {error}") from None
            if layer.digest:
                check_digest(where, outer.hexdigest(), layer.digest)
            check_digest(where, inner.hexdigest(), layer.diff_id)


@contextmanager
def _uncompressed(stream: HashingReader, where: str) -> Iterator[Any]:
    magic = stream.peek(4)
    if magic[:2] == GZIP:
        yield gzip.GzipFile(fileobj=cast("IO[bytes]", stream))
    elif magic == ZSTD:
        with _from_zstd(stream, where) as plain:
            yield plain
    else:
        yield stream


@contextmanager
def _from_zstd(stream: HashingReader, where: str) -> Iterator[IO[bytes]]:
    """Through the program, which a thread feeds: Python has no zstd before 3.14."""
    try:
        process = subprocess.Popen(
            ["zstd", "-dcq"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise BadArchive(f"{where} is compressed with zstd; install zstd, or use gzip") from None
    assert process.stdin is not None, "opened with a pipe"
    assert process.stdout is not None, "opened with a pipe"
    into = process.stdin

    def feed() -> None:
        # It has had enough or died, or the archive ends too soon: the digest tells.
        with contextlib.suppress(OSError, EOFError, tarfile.TarError), into:
            while chunk := stream.read(1 << 16):
                into.write(chunk)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield process.stdout
        code = process.wait()
    finally:
        process.stdout.close()
        process.kill()
        process.wait()
        feeder.join()
    if code != 0:
        raise BadArchive(f"{where} is damaged: zstd failed with {code}")


class HashingReader(io.RawIOBase):
    """A reader that keeps the SHA-256 of all that went through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        self._ahead = self.read(size)
        return self._ahead

    def read(self, size: int | None = -1) -> bytes:
        if self._ahead:
            size = len(self._ahead) if size is None or size < 0 else size
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        data = self._stream.read(-1 if size is None else size)
        self._hash.update(data)
        return data

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in ("..", "/", "."):
            parts.append(part)
    return "/".join(parts)


def architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def is_for_us(entry: dict[str, Any]) -> bool:
    """Whether a list's manifest is for this machine; what names no platform is for all."""
    where = entry.get("platform") or {}
    if where.get("os", "linux") != "linux":
        return False
    return bool(where.get("architecture", architecture()) == architecture())


def blob_path(digest: str) -> str:
    """Where an OCI layout keeps a blob. Raises BadArchive unless it is a SHA-256 digest."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or not HEX.fullmatch(value):
        raise BadArchive(f"{digest!r} is not a sha256 digest")
    return f"blobs/sha256/{value}"


def check_digest(where: str, hexdigest: str, expected: str) -> None:
    if f"sha256:{hexdigest}" != expected:
        raise BadArchive(f"{where} is damaged: it has digest sha256:{hexdigest}, not {expected}")


@contextmanager
def open_archive(path: str | Path) -> Iterator[Archive]:
    """An image archive for reading. Raises OSError, BadArchive."""
    path = Path(path)
    if path.is_dir():
        yield Archive(path, None)
        return
    try:
        tar = tarfile.open(path, "r:*")  # noqa: SIM115
    except (tarfile.TarError, EOFError) as error:
        raise BadArchive(f"{path}: neither a tar file nor a directory: {error}") from None
    with tar:
        try:
            archive = Archive(path, tar)
        except (tarfile.TarError, EOFError) as error:
            raise BadArchive(f"{path} is damaged: {error}") from None
        yield archive
