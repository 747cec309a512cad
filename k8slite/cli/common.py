"""What commands on clusters share: their flags, and finding the cluster that is meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from k8slite.cli.output import CommandFailed
from k8slite.cluster.layout import Layout, find, known

__all__ = [
    "DEFAULT_NAME", "add_command", "add_name", "add_output", "ask", "existing", "running",
]  # fmt: skip

DEFAULT_NAME: Final = "local"


def add_command(
    commands: Any,
    name: str,
    words: str,
    run: Callable[[argparse.Namespace], int],
    description: str = "",
) -> argparse.ArgumentParser:
    """A command; `words` stand in the list of commands, `description` in its own help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=words,
        description=description or f"{words[0].upper()}{words[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_name(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--name", default=DEFAULT_NAME, help="the cluster's name (default: %(default)s)"
    )
    return parser


def add_output(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "json"),
        default="table",
        help="for people or for programs (default: table)",
    )
    return parser


def existing(name: str) -> Layout:
    """The layout of a cluster that there is. Raises CommandFailed."""
    layout = find(name)
    if not layout.exists():
        others = ", ".join(other for other, _ in known())
        raise CommandFailed(
            f"there is no cluster {name!r}"
            + (f"; there are {others}" if others else ": k8slite up makes one")
        )
    return layout


def running(name: str) -> Layout:
    """The layout of a cluster that runs. Raises CommandFailed."""
    layout = existing(name)
    if not layout.is_running():
        raise CommandFailed(f"cluster {name!r} is not running: k8slite start --name {name}")
    return layout


def ask(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """What the supervisor answers. Raises CommandFailed."""
    from k8slite.cluster import control

    try:
        return control.ask(running(name).socket, request)
    except control.NotRunning as error:
        raise CommandFailed(f"cluster {name!r} does not answer: {error}") from error
    except control.Refused as error:
        raise CommandFailed(str(error)) from error
    except TimeoutError as error:
        raise CommandFailed(
            f"the supervisor of cluster {name!r} does not answer: see k8slite logs supervisor, or "
            f"end it with k8slite stop --name {name}"
        ) from error
