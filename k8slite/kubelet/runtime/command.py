"""What a container runs, from its configuration and its image's. Pure."""

from __future__ import annotations

import signal

from k8slite.kubelet.images.store import ImageConfig
from k8slite.kubelet.runtime.interface import ContainerConfig, RuntimeFailure


def command_of(config: ContainerConfig, image: ImageConfig) -> tuple[str, ...]:
    """`command` replaces the image's entrypoint and silences its cmd; `args` replace its cmd.

    Raises RuntimeFailure when nothing is left to run.
    """
    if config.command:
        words = config.command + config.args
    else:
        words = image.entrypoint + (config.args or image.command)
    if not words:
        raise RuntimeFailure(f"container {config.name}: no command specified")
    return words


def environment_of(config: ContainerConfig, image: ImageConfig, *, hostname: str) -> dict[str, str]:
    """The image's variables, overridden by the container's."""
    env = dict(entry.partition("=")[::2] for entry in image.env)
    env["HOSTNAME"] = hostname
    if config.tty:
        env["TERM"] = "xterm"
    env.update(config.env)
    return env


def stop_signal_of(image: ImageConfig) -> int:
    """The image's stop signal, by name (`SIGQUIT`, `QUIT`) or number; SIGTERM if it has none."""
    text = image.stop_signal.upper()
    if text.isdigit():
        return int(text)
    name = text if text.startswith("SIG") else f"SIG{text}"
    return int(signal.Signals.__members__.get(name, signal.SIGTERM))
