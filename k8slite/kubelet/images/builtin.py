"""The built-in image: this machine's own busybox, so that a first pod needs no registry.

Makes one layer directory: `bin/busybox` with a link for each applet, and the few files that a root
needs. Where busybox is not installed, `bin` holds small Python programs for the applets that the
examples use; then it serves the `process` runtime only, which has the machine's own shell.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
DIRECTORIES = ("dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "var/www", "var/run")

SHIM = """#!{python} -IS
# stands in for busybox {applet}
import sys
sys.path.append({directory!r})
import applets
sys.exit(applets.APPLETS[{applet!r}](sys.argv[1:]))
"""
SHIMMED = ("httpd", "sleep", "wget", "true", "false", "hostname", "nc")


@attrs.frozen
class BuiltinLayer:
    """`is_root`: it holds a whole root for a container, not only programs for a process."""

    path: Path
    digest: str
    size_bytes: int
    is_root: bool


def find_busybox() -> Path | None:
    found = shutil.which("busybox", path=f"{os.environ.get('PATH', '')}:/bin:/usr/bin:/sbin")
    return None if found is None else Path(found).resolve()


def is_static(program: Path) -> bool:
    """Whether an ELF file needs no loader: a root without libraries can run it."""
    with program.open("rb") as file:
        head = file.read(4096)
    return head[:4] == b"\x7fELF" and b"/ld-" not in head


def make_builtin(layers: Path, temporary: Path, *, busybox: Path | None = None) -> BuiltinLayer:
    """Make the layer, or find it made. `busybox` overrides the search (tests)."""
    program = busybox or find_busybox()
    if program is None:
        version = b"shims 1 " + sys.executable.encode()
    else:
        version = b"busybox 1 " + program.read_bytes()
    digest = hashlib.sha256(version).hexdigest()
    path = layers / f"builtin-{digest[:16]}"
    if not path.exists():
        making = Path(tempfile.mkdtemp(dir=temporary))
        making.chmod(0o755)
        (making / "bin").mkdir()
        if program is None:
            _make_shims(making / "bin")
        else:
            _make_root(making, program)
        try:
            making.rename(path)
        except OSError:
            shutil.rmtree(making, ignore_errors=True)
            if not path.exists():
                raise
    size = sum(f.stat().st_size for f in (path / "bin").iterdir() if not f.is_symlink())
    return BuiltinLayer(path, digest, size, program is not None and is_static(program))


def _make_root(root: Path, program: Path) -> None:
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    for name, text in FILES.items():
        (root / name).write_text(text)
    copy = root / "bin/busybox"
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    listing = subprocess.run([copy, "--list"], capture_output=True, check=True, text=True)
    for applet in listing.stdout.split():
        if applet != "busybox" and "/" not in applet:
            with contextlib.suppress(FileExistsError):
                (root / "bin" / applet).symlink_to("busybox")
    for applet in ("env", "sh"):
        (root / "usr/bin" / applet).symlink_to("../../bin/busybox")


def _make_shims(directory: Path) -> None:
    home = str(Path(__file__).parent)
    for applet in SHIMMED:
        file = directory / applet
        file.write_text(SHIM.format(python=sys.executable, applet=applet, directory=home))
        file.chmod(0o755)
