"""Where a cluster's files are, and which clusters there are.

Every cluster has one directory, and everything it makes is below it. By default that is
HOME/NAME, where HOME is `$K8SLITE_HOME` or `~/.local/share/k8slite`; with `up --dir DIR` HOME/NAME
is a link to DIR, so that other commands find the cluster by its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import attrs

from k8slite.cluster.spec import ClusterSpec, InvalidSpec, Place

__all__ = ["Layout", "NoSuchCluster", "find", "home", "known", "register", "unregister"]

CONFIG = "cluster.json"
OURS = ("data", "images", "logs", "nodes", "pki", "run")


class NoSuchCluster(Exception):
    """No cluster of that name; the message is for the user."""


@attrs.frozen
class Layout:
    """The files of one cluster. Paths only; nothing is created by asking."""

    root: Path

    @property
    def config(self) -> Path:
        """The spec and the place, JSON; there as long as the cluster is."""
        return self.root / CONFIG

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor as long as it lives."""
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

    def node(self, node: str) -> Path:
        """Everything of one node: its kubelet's root directory."""
        return self.root / "nodes" / node

    def exists(self) -> bool:
        return self.config.is_file()

    def make(self) -> None:
        """Raises OSError."""
        for directory in (self.root, *(self.root / name for name in OURS)):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> tuple[ClusterSpec, Place]:
        """Raises NoSuchCluster, also for a file that cannot be read."""
        try:
            stored: dict[str, Any] = json.loads(self.config.read_bytes())
            return ClusterSpec.from_json(stored["spec"]), Place.from_json(stored["place"])
        except FileNotFoundError:
            raise NoSuchCluster(f"there is no cluster in {self.root}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoSuchCluster(
                f"{self.config} cannot be read ({error}): delete the directory to start anew, "
                "or put the file back"
            ) from error

    def write(self, spec: ClusterSpec, place: Place) -> None:
        """Atomically and durably. Raises OSError."""
        text = json.dumps({"spec": spec.to_json(), "place": place.to_json()}, indent=1) + "\n"
        write_file(self.config, text.encode(), 0o600)

    def delete(self) -> None:
        """Delete what is ours; the directory itself too when nothing else is in it."""
        for name in OURS:
            shutil.rmtree(self.root / name, ignore_errors=True)
        self.kubeconfig.unlink(missing_ok=True)
        self.config.unlink(missing_ok=True)
        try:
            self.root.rmdir()
        except OSError:
            left = sorted(os.listdir(self.root)) if self.root.is_dir() else []
            if any(name in OURS for name in left):
                raise

    def is_running(self) -> bool:
        """Whether a supervisor holds the lock."""
        try:
            with open(self.lock, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


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


def home() -> Path:
    """Where clusters are by name."""
    given = os.environ.get("K8SLITE_HOME")
    if given:
        return Path(given).absolute()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data).absolute() / "k8slite"


def find(name: str) -> Layout:
    """The layout of a cluster of that name, whether it exists or not. Raises InvalidSpec."""
    ClusterSpec(name=name)  # checks the name, which becomes part of a path
    path = home() / name
    return Layout(path.resolve() if path.is_symlink() else path)


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


def register(name: str, directory: Path | None) -> Layout:
    """The layout of a new cluster; `directory` None: below home. Raises OSError, InvalidSpec."""
    place = home() / name
    layout = find(name)
    if directory is None or directory.absolute() == place:
        return layout
    directory = directory.resolve()
    if layout.exists() and layout.root != directory:
        raise InvalidSpec(f"cluster {name!r} is in {layout.root}, not in {directory}")
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    if place.exists():
        raise InvalidSpec(f"{place} is in the way: it is no cluster; remove it")
    place.symlink_to(directory)
    return Layout(directory)


def unregister(name: str) -> None:
    """Forget where a cluster of that name was."""
    place = home() / name
    if place.is_symlink():
        place.unlink()
    try:
        home().rmdir()
    except OSError:
        return  # others are there
