"""`k8slite status | list | kubeconfig`: what there is, and how it is."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any, Final

from k8slite.cli.common import add_command, add_name, add_output, ask, existing
from k8slite.cli.output import CommandFailed, age, bytes_of, print_json, print_table
from k8slite.cluster.layout import NoSuchCluster, known
from k8slite.terminal import colour

__all__ = ["STOPPED", "add_commands"]

STOPPED: Final = 3
"""The exit code of `status` for a cluster that does not run."""

STATUS: Final = """\
Show every process of a cluster: whether it runs, who leads, why it died, how much memory it has
(PSS: shared pages counted by their share).

Exit code 0: the cluster runs; 3: it is stopped; 1: there is none, or it does not answer.
"""
KUBECONFIG: Final = """\
Print a kubeconfig that needs no other file: certificates are inside. It is the administrator's.

  k8slite kubeconfig > ~/.kube/config.d/local
  kubectl --kubeconfig <(k8slite kubeconfig) get nodes
"""
STATE_COLOURS: Final = {
    "running": "green", "starting": "yellow", "paused": "yellow", "killed": "red", "crashed": "red",
}  # fmt: skip
FIGURES: Final = {
    "raftkv": ("term", "revision", "raft_applied"),
    "apiserver": ("revision", "requests"),
    "scheduler": ("leader", "transitions", "bound"),
    "controller-manager": ("leader", "transitions"),
    "kubelet": ("pods",),
    "proxy": ("ports", "syncs"),
}
"""The few figures of each role that people look for."""
WORDS_LENGTH: Final = 100
"""All of them: k8slite logs, or -o json."""
RECENT_SECONDS: Final = 120
"""So long one that was started again tells why."""
HEADINGS: Final = (
    "COMPONENT", "STATE", "LEADS", "PID", "RESTARTS", "AGE", "MEMORY", "DETAILS",
)  # fmt: skip


def add_commands(commands: Any) -> None:
    words = "who runs, who leads, how much memory"
    add_output(add_name(add_command(commands, "status", words, _status, STATUS)))
    add_output(add_command(commands, "list", "all clusters of this user", _list))
    words = "print a kubeconfig, certificates inside"
    add_name(add_command(commands, "kubeconfig", words, _kubeconfig, KUBECONFIG))


def _status(arguments: argparse.Namespace) -> int:
    name = arguments.name
    layout = existing(name)
    if not layout.is_running():
        if arguments.output == "json":
            print_json({"name": name, "running": False, "dir": str(layout.root)})
        else:
            layout.read()
            print(f"Cluster {name!r} is stopped: k8slite start --name {name}")
        return STOPPED
    status = ask(name, {"op": "status"})
    if arguments.output == "json":
        print_json({**status, "running": True})
        return 0
    spec, place = status["spec"], status["place"]
    components: dict[str, dict[str, Any]] = status["components"]
    total = sum(row["memory"] for row in (*components.values(), *status["own"].values()))
    print(
        f"Cluster {name!r}: {_state(status)}, https://127.0.0.1:{place['port']}, "
        f"{spec['runtime']} pods, {spec['proxy']} proxy, {bytes_of(total)} in all\n"
    )
    rows = [_row(component, row) for component, row in components.items()]
    rows += [
        (own, "running", "", row["pid"], 0, "", bytes_of(row["memory"]), "")
        for own, row in status["own"].items()
    ]
    print_table(HEADINGS, rows, colours={1: STATE_COLOURS})
    return 0


def _state(status: dict[str, Any]) -> str:
    """Of the whole: one word, and how many are missing."""
    missing = [c for c, row in status["components"].items() if row["state"] != "running"]
    if status["ready_seconds"] is None:
        return colour("starting", "yellow")
    if missing:
        return colour(f"{len(missing)} of {len(status['components'])} down", "red")
    return colour("ready", "green")


def _row(component: str, row: dict[str, Any]) -> tuple[object, ...]:
    status = row["status"]
    leads = status.get("leading") or status.get("role") == "leader"
    return (
        component,
        row["state"],
        "yes" if leads else "",
        row["pid"] or "-",
        row["restarts"],
        age(row["seconds"]) if row["pid"] else "-",
        bytes_of(row["memory"]),
        _figures(row) if row["state"] == "running" else _why_not(row),
    )


def _why_not(row: dict[str, Any]) -> str:
    """What is known of one that does not run."""
    if row["state"] == "killed":
        seconds = row["starts_in_seconds"]
        return "until it is resumed" if seconds is None else f"starts again in {seconds:.0f} s"
    words = []
    if row["state"] == "crashed":
        words.append(f"starts again in {row['starts_in_seconds']:.0f} s")
    if row["last_exit"] and row["state"] != "paused":
        words.append(_last_life(row))
    return "; ".join(words)


def _figures(row: dict[str, Any]) -> str:
    status = row["status"]
    shown = [n for n in FIGURES[row["role"]] if n in status]
    details = [f"{n.removeprefix('raft_')}={status[n]}" for n in shown]
    if status.get("problems"):
        details.append(f"problems={len(status['problems'])}: {status['problems'][0]}")
    if not status:
        details.append("does not answer")
    if row["last_exit"] and row["seconds"] < RECENT_SECONDS:
        details.append(f"({_last_life(row)})")
    return " ".join(details)


def _last_life(row: dict[str, Any]) -> str:
    words = f"its last life {row['last_exit']}"
    if row["last_words"]:
        words += ": " + textwrap.shorten(row["last_words"], WORDS_LENGTH, placeholder=" ...")
    return words


def _list(arguments: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    for name, layout in known():
        state = "running" if layout.is_running() else "stopped"
        row: dict[str, Any] = {"name": name, "state": state, "dir": str(layout.root)}
        try:
            spec, place = layout.read()
        except NoSuchCluster as error:
            found.append({**row, "state": "broken", "error": str(error)})
            continue
        found.append({**row, **spec.to_json(), "port": place.port})
    if arguments.output == "json":
        print_json(found)
        return 0
    if not found:
        sys.stderr.write("There is no cluster: k8slite up makes one.\n")
        return 0
    columns = ("name", "state", "control_planes", "nodes", "runtime", "proxy", "port", "dir")
    print_table(
        [column.upper().replace("_", "-") for column in columns],
        [[each.get(column, "-") for column in columns] for each in found],
    )
    return 0


def _kubeconfig(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    try:
        text = layout.kubeconfig.read_text()
    except FileNotFoundError:
        raise CommandFailed(
            f"cluster {arguments.name!r} has no kubeconfig; a start makes one: "
            f"k8slite start --name {arguments.name}"
        ) from None
    sys.stdout.write(text)
    return 0
