"""What `k8slite image pull` needs besides the pull: who we are, and bars on a terminal."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from k8slite.cli.output import CommandFailed
from k8slite.kubelet.images.credentials import BadCredentials, Credential, Keyring, read_config
from k8slite.kubelet.images.pull import Progress
from k8slite.kubelet.images.puller import docker_config_path

__all__ = ["Bars", "credentials_for"]

BAR_WIDTH: Final = 30
REDRAW_SECONDS: Final = 0.1


def credentials_for(repository: str, username: str, password: str) -> list[Credential]:
    """The given user, else those of docker's configuration. Raises CommandFailed."""
    if username:
        return [Credential(username, password)]
    path = Path(docker_config_path())
    keyring = Keyring()
    try:
        keyring.add(read_config(path.read_bytes()))
    except FileNotFoundError:
        return []
    except (OSError, BadCredentials) as error:
        raise CommandFailed(f"{path} cannot be used: {error}") from error
    return keyring.lookup(repository)


class Bars:
    """One line for each layer, redrawn in place; on what is no terminal, one when it is there."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._layers: dict[str, Progress] = {}
        self._drawn = 0
        self._drawn_at = 0.0

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._draw()

    def show(self, progress: Progress) -> None:
        self._layers[progress.digest] = progress
        if not self._live:
            if progress.done == progress.total:
                self._out.write(f"{progress.digest[7:19]}: {_size(progress.done)}\n")
        elif time.monotonic() >= self._drawn_at + REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        lines = "".join(f"\x1b[2K{_bar(progress)}\n" for progress in self._layers.values())
        self._out.write(up + lines)
        self._out.flush()
        self._drawn = len(self._layers)


def _bar(progress: Progress) -> str:
    name, done, total = progress.digest[7:19], progress.done, progress.total
    if not total:
        return f"{name}: {_size(done)}"
    full = BAR_WIDTH * done // total
    bar = "=" * full + " " * (BAR_WIDTH - full)
    return f"{name}: [{bar}] {_size(done)} of {_size(total)}"


def _size(amount: int) -> str:
    return f"{amount / 1e6:.1f} MB"
