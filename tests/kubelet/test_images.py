"""Image archives, good and hostile; names; the store; the built-in image."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8slite.kubelet.images.archive import BadArchive
from k8slite.kubelet.images.builtin import make_builtin
from k8slite.kubelet.images.reference import InvalidReference, parse_reference
from k8slite.kubelet.images.store import ImageStore
from tests.kubelet.archives import (
    directory,
    docker_archive,
    hard,
    link,
    member,
    oci_files,
    tar,
    tar_files,
    write_files,
)

root_only = pytest.mark.root


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("a/b@sha256:" + "0" * 64, "docker.io/a/b@sha256:" + "0" * 64),
    ],
)
def test_names_have_one_full_form(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full
    assert str(parse_reference(full)) == full


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "a/../b", "x:", "x@sha256:12", "-a", "a:b:c"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="couldn't parse image name"):
        parse_reference(text)


@given(st.text(max_size=40))
def test_no_name_breaks_the_parser(text: str) -> None:
    try:
        full = str(parse_reference(text))
    except InvalidReference:
        return
    assert str(parse_reference(full)) == full
    assert ".." not in full.split("/")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


LAYER = tar(directory("etc"), member("etc/hello", b"world", mode=0o640))
CONFIG = {"Entrypoint": ["/run"], "Cmd": ["-x"], "Env": ["A=b"], "WorkingDir": "/w", "User": "5:6"}


def test_docker_archives_are_loaded(store: ImageStore, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", [LAYER], "app:1", "app:2", **CONFIG)
    (image,) = store.load(path)
    assert image.names == ("docker.io/library/app:1", "docker.io/library/app:2")
    assert image.config.entrypoint == ("/run",)
    assert (image.config.command, image.config.env) == (("-x",), ("A=b",))
    assert (image.config.working_dir, image.config.user) == ("/w", "5:6")
    for name in ("app:1", "docker.io/library/app:2", image.id, image.id[7:]):
        assert store.resolve(name) == image
    assert store.resolve("app:3") is None
    assert store.images() == [image]
    assert ImageStore(tmp_path / "store").images() == [image]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_oci_layouts_are_loaded(
    store: ImageStore, tmp_path: Path, compress: bool, packed: bool
) -> None:
    files = oci_files([LAYER], compress=compress)
    path = tar_files(tmp_path / "a.tar", files) if packed else write_files(tmp_path / "d", files)
    (image,) = store.load(path)
    assert image.names == ("example.com/app:1",)
    assert image.size_bytes == 5
    assert store.resolve(f"example.com/app@{image.digest}") == image
    if os.geteuid() == 0:
        assert (image.layers[0] / "etc/hello").read_bytes() == b"world"
        assert stat.S_IMODE((image.layers[0] / "etc/hello").stat().st_mode) == 0o640


@pytest.mark.tool("zstd")
def test_layers_in_zstd(store: ImageStore, tmp_path: Path) -> None:
    def pack(layer: bytes) -> bytes:
        done = subprocess.run(["zstd", "-qc"], input=layer, capture_output=True, check=True)
        return done.stdout

    big = tar(member("etc/blob", os.urandom(300_000)))
    files = oci_files([LAYER, big], packer=pack)
    (image,) = store.load(write_files(tmp_path / "layout", files))
    assert len(image.layers) == 2
    name, blob = max(files.items(), key=lambda item: len(item[1]))
    for number, bad in enumerate((blob[:-1000], blob[:-1] + b"!", blob[:4])):
        broken = ImageStore(tmp_path / f"store-{number}")
        with pytest.raises(BadArchive, match="is damaged"):
            broken.load(write_files(tmp_path / f"layout-{number}", {**files, name: bad}))
        assert broken.images() == []


def test_a_compressed_archive_is_read_too(store: ImageStore, tmp_path: Path) -> None:
    plain = docker_archive(tmp_path / "a.tar", [LAYER], "app:1")
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert store.load(packed)[0].names == ("docker.io/library/app:1",)


def test_an_image_without_a_name_needs_one(store: ImageStore, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", [LAYER])
    with pytest.raises(BadArchive, match="--name"):
        store.load(path)
    assert store.load(path, name="mine")[0].names == ("docker.io/library/mine:latest",)


def test_names_move_and_layers_go_with_the_last_image(store: ImageStore, tmp_path: Path) -> None:
    other = tar(member("other"))
    (first,) = store.load(docker_archive(tmp_path / "a.tar", [LAYER], "app", "keep"))
    (second,) = store.load(docker_archive(tmp_path / "b.tar", [LAYER, other], "app"))
    assert store.resolve("app") == second
    assert store.resolve("keep").id == first.id  # type: ignore[union-attr]
    assert store.remove("app")
    assert store.resolve("app") is None
    assert not second.layers[1].exists()
    assert first.layers[0].exists()
    assert store.remove("keep")
    assert not first.layers[0].exists()
    assert not store.remove("keep")
    assert store.images() == []


@root_only
def test_layers_stack_with_their_whiteouts(store: ImageStore, tmp_path: Path) -> None:
    upper = tar(member("etc/.wh.hello"), directory("var"), member("var/.wh..wh..opq"))
    (image,) = store.load(docker_archive(tmp_path / "a.tar", [LAYER, upper], "app"))
    hidden = (image.layers[1] / "etc/hello").lstat()
    assert stat.S_ISCHR(hidden.st_mode)
    assert hidden.st_rdev == 0
    assert os.getxattr(image.layers[1] / "var", "trusted.overlay.opaque") == b"y"


@root_only
def test_owners_links_and_modes_are_kept(store: ImageStore, tmp_path: Path) -> None:
    layer = tar(
        directory("bin", uid=3),
        member("bin/a", b"x", mode=0o4755, uid=7, gid=8),
        link("bin/b", "a"),
        link("bin/c", "/etc/passwd"),
        hard("bin/d", "bin/a"),
        member("dev/null", type=tarfile.CHRTYPE),
        member("bin/a2", b"1"),
        member("bin/a2", b"22"),
    )
    (image,) = store.load(docker_archive(tmp_path / "a.tar", [layer], "app"))
    top = image.layers[0]
    found = (top / "bin/a").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o4755)
    assert found.st_nlink == 2
    assert os.readlink(top / "bin/b") == "a"
    assert os.readlink(top / "bin/c") == "/etc/passwd"
    assert (top / "bin/a2").read_bytes() == b"22"
    assert (top / "bin").stat().st_uid == 3
    assert not (top / "dev/null").exists()


HOSTILE = {
    "a name with dots": [member("../evil", b"x")],
    "dots inside": [member("a/../../evil", b"x")],
    "through a link": [link("a", "/tmp"), member("a/evil", b"x")],
    "through a relative link": [link("a", "../.."), member("a/evil", b"x")],
    "a directory through a link": [link("a", "/tmp"), directory("a/evil")],
    "a whiteout through a link": [link("a", "/tmp"), member("a/.wh.evil")],
    "a hard link out": [hard("a", "../../../etc/passwd")],
    "a hard link through a link": [link("l", "/etc"), hard("a", "l/passwd")],
    "a hard link to nothing": [hard("a", "nothing")],
}


@root_only
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers_are_refused_and_leave_nothing(
    name: str, store: ImageStore, tmp_path: Path
) -> None:
    before = sorted(str(p) for p in (tmp_path / "store").rglob("*"))
    path = docker_archive(tmp_path / "a.tar", [tar(*HOSTILE[name])], "app")
    with pytest.raises(BadArchive):
        store.load(path)
    assert store.images() == []
    assert sorted(str(p) for p in (tmp_path / "store").rglob("*")) == before
    assert not Path("/tmp/evil").exists()


def test_an_absolute_name_stays_inside(store: ImageStore, tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "a.tar", [tar(member("/k8slite-evil", b"x"))], "app")
    (image,) = store.load(path)
    assert not Path("/k8slite-evil").exists()
    if os.geteuid() == 0:
        assert (image.layers[0] / "k8slite-evil").exists()


def _break(change: Callable[[dict[str, bytes]], Any]) -> dict[str, bytes]:
    files = oci_files([LAYER])
    change(files)
    return files


def _blob(files: dict[str, bytes], start: bytes) -> str:
    return next(n for n, data in files.items() if "blobs" in n and data.startswith(start))


BROKEN = {
    "no manifest": lambda f: f.pop("index.json"),
    "index is no JSON": lambda f: f.update({"index.json": b"{"}),
    "index is odd": lambda f: f.update({"index.json": b'{"manifests": 3}'}),
    "a blob is missing": lambda f: f.pop(_blob(f, b"\x1f\x8b")),
    "a blob has changed": lambda f: f.update({_blob(f, b"\x1f\x8b"): gzip.compress(b"else")}),
    "a blob is cut": lambda f: f.update({_blob(f, b"\x1f\x8b"): f[_blob(f, b"\x1f\x8b")][:-9]}),
    "the config has changed": lambda f: f.update({_blob(f, b'{"arch'): b"{}"}),
    "a digest is a path": lambda f: f.update(
        {"index.json": b'{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}'}
    ),
    "another machine": lambda f: f.update(
        {"index.json": f["index.json"].replace(b'"annot', b'"platform": {"os": "vms"}, "annot')}
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_layouts_are_refused(name: str, store: ImageStore, tmp_path: Path) -> None:
    for number, write in enumerate((write_files, tar_files)):
        with pytest.raises(BadArchive):
            store.load(write(tmp_path / f"x{number}", _break(BROKEN[name])))
    assert store.images() == []


def test_a_layout_directory_does_not_lead_out(store: ImageStore, tmp_path: Path) -> None:
    files = oci_files([LAYER])
    where = write_files(tmp_path / "d", files)
    blob = where / _blob(files, b"\x1f\x8b")
    outside = tmp_path / "outside"
    blob.rename(outside)
    blob.symlink_to(outside)
    with pytest.raises(BadArchive):
        store.load(where)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, gzip.compress(b"")[:8]])
def test_files_that_are_no_archives(content: bytes, store: ImageStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadArchive):
        store.load(path)


def test_an_archive_cut_at_any_place_is_refused(store: ImageStore, tmp_path: Path) -> None:
    whole = docker_archive(tmp_path / "a.tar", [LAYER], "app").read_bytes()
    end = len(whole.rstrip(b"\0"))
    path = tmp_path / "cut.tar"
    for size in range(0, end - 512, 512):
        path.write_bytes(whole[:size])
        with pytest.raises(BadArchive):
            store.load(path)


@pytest.mark.tool("busybox")
def test_busybox_is_built_in_under_any_tag(store: ImageStore) -> None:
    image = store.resolve("busybox:whatever")
    assert image is not None
    assert image.names == ("docker.io/library/busybox:whatever",)
    assert image.config.command == ("sh",)
    assert (Path(image.programs) / "sh").resolve().name == "busybox"
    assert not os.path.isabs(os.readlink(Path(image.programs) / "httpd"))
    assert store.resolve("example.com/busybox") is None


def test_a_loaded_busybox_comes_first(store: ImageStore, tmp_path: Path) -> None:
    (mine,) = store.load(docker_archive(tmp_path / "a.tar", [LAYER], "busybox:1"))
    assert store.resolve("busybox:1") == mine
    assert store.resolve("busybox:2") != mine


def test_without_busybox_small_programs_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    monkeypatch.setattr("k8slite.kubelet.images.builtin.find_busybox", lambda: None)
    (tmp_path / "layers").mkdir()
    (tmp_path / "temporary").mkdir()
    layer = make_builtin(tmp_path / "layers", tmp_path / "temporary")
    assert not layer.is_root
    for command, code in ((["sleep", "0.01"], 0), (["true"], 0), (["false"], 1)):
        program = str(layer.path / "bin" / command[0])
        assert subprocess.run([program, *command[1:]], check=False).returncode == code
    assert make_builtin(tmp_path / "layers", tmp_path / "temporary") == layer


def test_programs_are_there_whatever_was_loaded(store: ImageStore, tmp_path: Path) -> None:
    store.load(docker_archive(tmp_path / "a.tar", [LAYER], "busybox:latest"))
    assert (Path(store.builtin_programs()) / "httpd").exists()


def test_another_process_sees_what_was_loaded(store: ImageStore, tmp_path: Path) -> None:
    other = ImageStore(tmp_path / "store")
    for number in range(20):
        path = docker_archive(tmp_path / "a.tar", [LAYER], "app", Cmd=[str(number)])
        store.load(path)
        found = other.resolve("app")
        assert found is not None
        assert found.config.command == (str(number),)
