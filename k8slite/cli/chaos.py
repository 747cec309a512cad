"""`k8slite chaos kill | pause | resume TARGET`."""

from __future__ import annotations

import argparse
import math
from typing import Any

from k8slite.cli.common import add_name, ask
from k8slite.cli.output import UsageError, print_json

__all__ = ["add_commands"]

TARGETS = """\
TARGET is raft-leader, scheduler-leader, controller-manager-leader (whoever leads now), node-1 (its
kubelet, its proxy and its pods), or any component by the name that `k8slite status` shows.
"""
ACTIONS = {
    "kill": "end it with SIGKILL; it stays dead for a while, so that others must take over",
    "pause": "stop it with SIGSTOP: it keeps its connections and its memory, and does nothing",
    "resume": "let what is paused go on, and start what is kept dead",
}
DONE = {"kill": "killed", "pause": "paused", "resume": "resumed"}


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "chaos",
        help="kill, pause and resume components",
        description=f"Break the cluster on purpose.\n\n{TARGETS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for action, words in ACTIONS.items():
        each = actions.add_parser(
            action,
            help=words,
            description=f"{words[0].upper()}{words[1:]}.\n\n{TARGETS}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.add_argument("target", metavar="TARGET")
        add_name(each)
        each.add_argument("-o", "--output", choices=("text", "json"), default="text")
        if action == "kill":
            each.add_argument(
                "--for",
                dest="seconds",
                metavar="TIME",
                help="how long it stays dead: 20s, 2m, 0, or inf, until it is resumed "
                "(default: 20s, with `up --fast` 5s)",
            )
        each.set_defaults(run=run, action=action)


def run(arguments: argparse.Namespace) -> int:
    from k8slite.cluster.durations import parse_seconds

    request: dict[str, Any] = {"op": arguments.action, "target": arguments.target}
    if getattr(arguments, "seconds", None) is not None:
        try:
            seconds = parse_seconds(arguments.seconds)
        except ValueError as error:
            raise UsageError(f"--for: {error}") from error
        request["seconds"] = seconds if math.isfinite(seconds) else None
    answer = ask(arguments.name, request)
    if arguments.output == "json":
        print_json(answer)
        return 0
    for each in answer["done"]:
        print(_words(arguments.action, each["component"], each["pid"], answer["seconds"]))
    return 0


def _words(action: str, component: str, pid: int, seconds: float | None) -> str:
    if not pid:
        also = {"kill": f", and stays so {_until(seconds)}", "resume": ": it is started"}
        return f"{component} is dead" + also.get(action, "")
    if action != "kill":
        return f"{component} (pid {pid}) is {DONE[action]}"
    return f"{component} (pid {pid}) is killed; it stays dead {_until(seconds)}"


def _until(seconds: float | None) -> str:
    return "until it is resumed" if seconds is None else f"for {seconds:g} s"
