"""Where a cluster's files are, and which clusters there are.

Every cluster has one directory, and everything it makes is below it. By default that is
HOME/NAME, where HOME is `$K8SLITE_HOME` or `~/.local/share/k8slite`; with `up --dir DIR` HOME/NAME
is a link to DIR, so that other commands find the cluster by its name.

A directory is ours by a file in it that says so, and nothing is ever deleted in one that lacks it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

import attrs

from k8slite.cluster import lock
from k8slite.cluster.spec import ClusterSpec, InvalidSpec, Place, check_name

__all__ = ["Layout", "NoSuchCluster", "find", "home", "known", "locate", "register", "unregister"]

CONFIG: Final = "cluster.json"
MARKER: Final = ".k8slite"
OURS: Final = ("data", "images", "logs", "nodes", "pki", "run", "volumes")
NETWORK_DIGITS: Final = 4


class NoSuchCluster(Exception):
    """No cluster of that name, or one that cannot be read; the message is for the user."""


@attrs.frozen
class Layout:
    """The files of one cluster. Paths only; nothing is created by asking."""

    root: Path

    @property
    def config(self) -> Path:
        """The spec and the place, JSON; there as long as the cluster is."""
        return self.root / CONFIG

    @property
    def marker(self) -> Path:
        """Says whose directory it is; the first file that is made and the last to go."""
        return self.root / MARKER

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor as long as it lives: see `lock.py`."""
        return self.root / "run" / "supervisor.lock"

    @property
    def socket(self) -> Path:
        return self.root / "run" / "control.sock"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def data(self, component: str) -> Path:
        return self.root / "data" / component

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    @property
    def volumes(self) -> Path:
        """What claims of the storage class `standard` get: a directory each."""
        return self.root / "volumes"

    def node(self, node: str) -> Path:
        """Everything of one node: its kubelet's root directory."""
        return self.nodes / node

    def network(self, cluster: str) -> str:
        """What namespaces and interfaces of the cluster are named after: clusters of one name in
        two homes have each their own."""
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()
        return f"{cluster}-{digest[:NETWORK_DIGITS]}"

    def exists(self) -> bool:
        return self.config.is_file()

    def is_ours(self) -> bool:
        """Whether what is in the directory may be deleted."""
        return self.marker.is_file() or self.config.is_file()

    def is_running(self) -> bool:
        """Whether there is a supervisor, or an `up` that is about to start one."""
        return lock.is_held(self.lock)

    def owner(self) -> str:
        """The cluster whose directory it is; empty where that is not said."""
        try:
            return self.marker.read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def claim(self, cluster: str) -> None:
        """Make the directory the cluster's own. Raises InvalidSpec for one that is something
        else's, OSError."""
        owner = self.owner()
        if owner and owner != cluster:
            raise InvalidSpec(f"{self.root} is the directory of cluster {owner!r}")
        if not self.is_ours() and self.root.is_dir() and os.listdir(self.root):
            raise InvalidSpec(
                f"{self.root} is not empty and no cluster's: give --dir a new directory"
            )
        if self.root.exists() and not self.root.is_dir():
            raise InvalidSpec(f"{self.root} is not a directory")
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.exists():
            self.marker.write_text(f"{cluster}\n")
        for name in OURS:
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def read(self) -> tuple[ClusterSpec, Place]:
        """Raises NoSuchCluster, also for a file that cannot be read."""
        try:
            stored: dict[str, Any] = json.loads(self.config.read_bytes())
            return ClusterSpec.from_json(stored["spec"]), Place.from_json(stored["place"])
        except FileNotFoundError:
            raise NoSuchCluster(f"there is no cluster in {self.root}") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise NoSuchCluster(
                f"{self.config} cannot be read ({error}): put the file back, or delete the cluster "
                f"with its data: k8slite down --name {self.owner() or self.root.name}"
            ) from error

    def write(self, spec: ClusterSpec, place: Place) -> None:
        """Atomically and durably. Raises OSError."""
        text = json.dumps({"spec": spec.to_json(), "place": place.to_json()}, indent=1) + "\n"
        write_file(self.config, text.encode(), 0o600)

    def delete(self, *, keep_logs: bool = False) -> None:
        """Delete what is ours; the directory itself too when nothing else is in it. Raises
        OSError; it may then be called again."""
        assert self.is_ours(), f"{self.root} is not ours to delete"
        for name in OURS:
            if not (keep_logs and name == "logs"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(self.root / name)
        self.kubeconfig.unlink(missing_ok=True)
        if keep_logs:
            self.config.unlink(missing_ok=True)
            return
        self.config.unlink(missing_ok=True)
        self.marker.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is in it, or it is a mount
            self.root.rmdir()


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Atomically and durably. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# --- clusters by name ----------------------------------------------------------------------------


def home() -> Path:
    """Where clusters are by name. Raises InvalidSpec for a user without a home."""
    given = os.environ.get("K8SLITE_HOME")
    if given:
        return Path(given).resolve()
    data = os.environ.get("XDG_DATA_HOME")
    if data:
        return Path(data).resolve() / "k8slite"
    try:
        return Path.home().resolve() / ".local" / "share" / "k8slite"
    except RuntimeError:
        raise InvalidSpec(
            "you have no home directory: say in K8SLITE_HOME where clusters are kept"
        ) from None


def find(name: str) -> Layout:
    """The layout of a cluster of that name, whether it exists or not. Raises InvalidSpec."""
    check_name(name)  # it becomes part of a path
    return Layout((home() / name).resolve())


def known() -> list[tuple[str, Layout]]:
    """All clusters that exist, running or not, by name."""
    try:
        names = sorted(os.listdir(home()))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            layout = find(name)
        except InvalidSpec:
            continue
        if layout.exists():
            found.append((name, layout))
    return found


def locate(name: str, directory: Path | None) -> Layout:
    """Where `up` would have the cluster; `directory` None: below home. Raises InvalidSpec."""
    link = home() / name
    layout = find(name)
    if directory is None:
        if link.is_symlink() and not layout.exists() and not layout.is_ours():
            raise InvalidSpec(
                f"cluster {name!r} was in {layout.root}, and is not there now: mount it again, or "
                f"forget it: k8slite down --name {name}"
            )
        return layout
    directory = directory.resolve()
    if layout.root != directory and (layout.exists() or (link.exists() and not link.is_symlink())):
        raise InvalidSpec(
            f"cluster {name!r} is in {layout.root}, not in {directory}: leave --dir out, or delete "
            f"it first: k8slite down --name {name}"
        )
    return Layout(directory)


def register(name: str, layout: Layout) -> None:
    """Let the cluster be found by its name. Raises OSError."""
    link = home() / name
    if link == layout.root or link.resolve() == layout.root:
        return
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(layout.root)


def unregister(name: str) -> None:
    """Forget where a cluster of that name was."""
    link = home() / name
    if link.is_symlink():
        link.unlink()
    with contextlib.suppress(OSError):  # others are there
        home().rmdir()
