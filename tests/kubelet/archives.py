"""Image archives for tests, made in a few lines, honest and hostile."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARCHITECTURE = {"architecture": "amd64", "os": "linux"}


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry; `type`, `linkname`, `mode` as in TarInfo."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def directory(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(layers: list[bytes], **config: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps({**ARCHITECTURE, "config": config, "rootfs": rootfs}).encode()


def docker_archive(path: Path, layers: list[bytes], *tags: str, **config: Any) -> Path:
    """What `docker save` writes (the form with a directory a layer)."""
    document = config_of(layers, **config)
    name = digest(document)[7:] + ".json"
    files = {f"{n}/layer.tar": layer for n, layer in enumerate(layers)}
    entry = {"Config": name, "RepoTags": list(tags) or None, "Layers": list(files)}
    manifest = json.dumps([entry]).encode()
    everything = {name: document, **files, "manifest.json": manifest}
    path.write_bytes(tar(*(member(n, data) for n, data in everything.items())))
    return path


def oci_files(
    layers: list[bytes],
    name: str = "example.com/app:1",
    *,
    compress: bool = True,
    packer: Callable[[bytes], bytes] = lambda layer: gzip.compress(layer, mtime=0),
    **config: Any,
) -> dict[str, bytes]:
    """An OCI layout as a mapping of paths."""
    document = config_of(layers, **config)
    blobs = [packer(layer) if compress else layer for layer in layers]
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest(document), "size": len(document)},
            "layers": [{"digest": digest(b), "size": len(b), "mediaType": kind} for b in blobs],
        }
    ).encode()
    notes = {"org.opencontainers.image.ref.name": name} if name else {}
    entry = {"digest": digest(manifest), "size": len(manifest), "annotations": notes}
    index = {"schemaVersion": 2, "manifests": [entry]}
    files = {f"blobs/sha256/{digest(data)[7:]}": data for data in (document, manifest, *blobs)}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **files,
    }


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar_files(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar(*(member(f"./{name}", data) for name, data in files.items())))
    return path
