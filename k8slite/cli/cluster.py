"""`k8slite up | down | stop | start | status | list | logs | kubeconfig`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import attrs

from k8slite.cli.output import CommandFailed, age, bytes_of, print_json, print_table
from k8slite.cluster.layout import Layout, NoSuchCluster, find, known, register, unregister
from k8slite.cluster.spec import ClusterSpec, InvalidSpec
from k8slite.terminal import colour

__all__ = ["DEFAULT_NAME", "add_commands", "ask_status", "existing", "running"]

DEFAULT_NAME: Final = "local"
STOP_SECONDS: Final = 60.0
FOLLOW_SECONDS: Final = 0.2

UP = """\
Start a highly available cluster of ordinary processes on this machine, and wait until it is ready.

Without --detach it runs until Ctrl-C. A cluster that was stopped, or that died with its machine, is
started again with its data: the flags must then be the same or left out.
"""


def add_commands(commands: Any) -> None:
    up = _add(commands, "up", "make a cluster and start it", UP, _up)
    add = up.add_argument
    add("--name", default=DEFAULT_NAME, help="the cluster's name (default: %(default)s)")
    add(
        "--control-planes",
        type=int,
        metavar="N",
        help="members of the store, apiservers, schedulers and controller managers (default: 3)",
    )
    add("--nodes", type=int, metavar="N", help="nodes, each a kubelet and a proxy (default: 2)")
    add(
        "--runtime",
        choices=("auto", "oci", "process", "fake"),
        help="what pods are: containers, "
        "processes, or only pretended (default: auto, containers if they can be had)",
    )
    add(
        "--proxy",
        choices=("auto", "iptables", "nftables", "userspace", "none"),
        help="how services work (default: auto, what suits the runtime)",
    )
    add("--store", choices=("raftkv", "memory"), help="where objects are kept (default: raftkv)")
    add(
        "--fast",
        action="store_const",
        const=True,
        help="short leases, and nodes that are missed after seconds, not minutes",
    )
    add("--detach", action="store_true", help="return when the cluster is ready")
    add("--dir", type=Path, metavar="DIR", help="keep everything of the cluster there")
    add(
        "--port",
        type=int,
        metavar="P",
        help="where the apiservers answer on 127.0.0.1 (default: 6443, or a free one)",
    )
    add(
        "--token-auth-file",
        metavar="FILE",
        help='bearer tokens, as kube-apiserver\'s: lines of token,user,uid,"group,group"',
    )
    _named(_add(commands, "down", "end a cluster and delete it with its data", "", _down))
    _named(_add(commands, "stop", "end a cluster's processes and keep its data", "", _stop))
    start = _named(_add(commands, "start", "start a stopped cluster", "", _start))
    start.add_argument("--attach", action="store_true", help="stay until Ctrl-C, then stop it")
    status = _named(_add(commands, "status", "who runs, who leads, how much memory", "", _status))
    _output(status)
    _output(_add(commands, "list", "all clusters of this user", "", _list))
    logs = _named(_add(commands, "logs", "what a component says of itself", "", _logs))
    logs.add_argument("component", metavar="COMPONENT", help="as `k8slite status` names it")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    logs.add_argument("--tail", type=int, default=-1, metavar="N", help="only the last N lines")
    _output(logs)
    config = _add(
        commands, "kubeconfig", "print a kubeconfig, certificates inside", "", _kubeconfig
    )
    _named(config)


def _add(
    commands: Any, name: str, words: str, description: str, run: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=words,
        description=description or f"{words[0].upper()}{words[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--name", default=DEFAULT_NAME, help="the cluster's name (default: %(default)s)"
    )
    return parser


def _output(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="default: table"
    )
    return parser


# --- up, start -----------------------------------------------------------------------------------


def _up(arguments: argparse.Namespace) -> int:
    from k8slite.cluster.machine import choose
    from k8slite.cluster.placing import PortTaken, make_place

    started = time.monotonic()
    layout = register(arguments.name, arguments.dir)
    if layout.exists():
        _check_same(arguments, layout)
        return _run(arguments.name, layout, attached=not arguments.detach, started=started)
    choice = choose(arguments.runtime or "auto", arguments.proxy or "auto")
    store = arguments.store or "raftkv"
    spec = ClusterSpec(
        name=arguments.name,
        control_planes=_or(arguments.control_planes, 3 if store == "raftkv" else 1),
        nodes=_or(arguments.nodes, 2),
        runtime=choice.runtime,
        proxy=choice.proxy,
        store=store,
        fast=bool(arguments.fast),
        port=arguments.port or 0,
        token_auth_file=str(Path(arguments.token_auth_file).absolute())
        if arguments.token_auth_file
        else "",
    )
    if spec.token_auth_file and not os.access(spec.token_auth_file, os.R_OK):
        raise CommandFailed(f"--token-auth-file {spec.token_auth_file} cannot be read")
    if choice.notice and spec.nodes:
        sys.stderr.write(f"note: {choice.notice}\n")
    try:
        make_place(layout, spec)
    except PortTaken as error:
        unregister(arguments.name)
        raise CommandFailed(str(error)) from error
    return _run(
        arguments.name, layout, attached=not arguments.detach, started=started, made_now=True
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _check_same(arguments: argparse.Namespace, layout: Layout) -> None:
    """An existing cluster is only started again; flags that would change it are refused."""
    if layout.is_running():
        raise CommandFailed(
            f"cluster {arguments.name!r} is running already: "
            f"k8slite status --name {arguments.name}, or choose another --name"
        )
    spec, _ = layout.read()
    wanted = {
        "--control-planes": (arguments.control_planes, spec.control_planes),
        "--nodes": (arguments.nodes, spec.nodes),
        "--runtime": (_unless_auto(arguments.runtime), spec.runtime),
        "--proxy": (_unless_auto(arguments.proxy), spec.proxy),
        "--store": (arguments.store, spec.store),
        "--fast": (arguments.fast, spec.fast),
        "--port": (arguments.port or None, spec.port or layout.read()[1].port),
    }
    for flag, (given, is_now) in wanted.items():
        if given is not None and given != is_now:
            raise CommandFailed(
                f"cluster {arguments.name!r} exists, with {flag} {is_now}: leave the flag out to "
                f"start it again, or delete it first: k8slite down --name {arguments.name}"
            )


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


def _start(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    if layout.is_running():
        raise CommandFailed(f"cluster {arguments.name!r} is running already")
    return _run(arguments.name, layout, attached=arguments.attach, started=time.monotonic())


def _run(
    name: str, layout: Layout, *, attached: bool, started: float, made_now: bool = False
) -> int:
    """Start the supervisor, show what it does, and stay with it if `attached`."""
    from k8slite.cluster.placing import PortTaken, refresh_place
    from k8slite.cluster.zygote import MARK

    spec, place = layout.read()
    layout.make()
    if not made_now:
        try:
            refresh_place(layout, spec, place)
        except PortTaken as error:
            raise CommandFailed(str(error)) from error
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, open(layout.log("supervisor"), "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "k8slite.cluster.daemon", str(layout.root),
                 str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env={**os.environ, MARK: str(layout.root)},
            )  # fmt: skip
        lines = _Lines(ours)
        try:
            error = _wait_ready(lines)
        except KeyboardInterrupt:
            error = "interrupted"
        if error:
            ours.close()
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
            if made_now:
                _forget(name, layout)
            raise CommandFailed(f"cluster {name!r} could not be started: {error}")
        seconds = time.monotonic() - started
        _tell_ready(name, spec, layout, seconds)
        if not attached:
            ours.sendall(b"detach")
            return 0
        print("Ctrl-C stops it.", flush=True)
        return _stay(name, process, ours, lines)


class _Lines:
    """Lines of JSON from the supervisor."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""

    def next(self) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            chunk = self._socket.recv(4096)
            if not chunk:
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        words: dict[str, Any] = json.loads(line)
        return words


def _wait_ready(lines: _Lines) -> str:
    """Show progress; "" once it is ready, else what went wrong."""
    while True:
        words = lines.next()
        if words is None:
            return "its supervisor ended; see its log"
        if "ready" in words:
            return ""
        if "error" in words:
            return str(words["error"])
        stamp = colour(f"{words['seconds']:5.2f} s", "dim", sys.stderr)
        sys.stderr.write(f"  {stamp}  {words['step']}\n")


def _tell_ready(name: str, spec: ClusterSpec, layout: Layout, seconds: float) -> None:
    what = f"{spec.control_planes} control planes, {spec.nodes} nodes"
    done = colour(f"Cluster {name!r} is ready", "green")
    print(f"{done} after {seconds:.2f} s: {what}, {spec.runtime} pods, {spec.proxy} proxy.")
    print(f"export KUBECONFIG={layout.kubeconfig}", flush=True)


def _forget(name: str, layout: Layout) -> None:
    """A cluster that could not be made is not there, but for its logs."""
    layout.config.unlink(missing_ok=True)
    if layout.root.parent != Path(layout.root.anchor):
        unregister(name)


def _stay(name: str, process: subprocess.Popen[bytes], sock: socket.socket, lines: _Lines) -> int:
    """Until Ctrl-C, SIGTERM, or the cluster's end."""
    interrupted = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        select.select([sock], [], [])
        while lines.next() is not None:
            pass
        process.wait()
        raise CommandFailed(f"cluster {name!r} has ended: it was stopped, or see its logs")
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        sys.stderr.write(f"\nstopping cluster {name!r} ...\n")
        sock.close()
        process.wait()
        print(f"Cluster {name!r} is stopped; its data is kept (k8slite start, k8slite down).")
        return 0


# --- down, stop ----------------------------------------------------------------------------------


def existing(name: str) -> Layout:
    layout = find(name)
    if not layout.exists():
        others = ", ".join(known_name for known_name, _ in known())
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


def _stop_supervisor(layout: Layout) -> bool:
    """Whether there was one to stop."""
    from k8slite.cluster import control

    if not layout.is_running():
        return False
    try:
        control.ask(layout.socket, {"op": "stop"})
    except (control.NotRunning, TimeoutError):
        _kill_supervisor(layout)
    ends_at = time.monotonic() + STOP_SECONDS
    while layout.is_running():
        if time.monotonic() > ends_at:
            _kill_supervisor(layout)
            break
        time.sleep(0.02)
    return True


def _kill_supervisor(layout: Layout) -> None:
    """One that does not answer: stopped, or stuck in its start."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(layout.lock.read_text()), signal.SIGKILL)
    while layout.is_running():
        time.sleep(0.02)


def _end(name: str, layout: Layout) -> bool:
    """End everything outside the directory; whether anything was there."""
    from k8slite.cluster.cleanup import clean, strays

    was_running = _stop_supervisor(layout)
    lost = bool(strays(layout))
    try:
        clean(name, layout)
    except PermissionError as error:
        raise CommandFailed(f"{error}: was the cluster started by another user?") from error
    except OSError as error:
        raise CommandFailed(str(error)) from error
    return was_running or lost


def _stop(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    if _end(arguments.name, layout):
        print(f"Cluster {arguments.name!r} is stopped; its data is kept.")
    else:
        print(f"Cluster {arguments.name!r} was not running.")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    layout = find(arguments.name)
    if not layout.exists() and not layout.root.exists():
        existing(arguments.name)
    _end(arguments.name, layout)
    try:
        layout.delete()
    except OSError as error:
        raise CommandFailed(f"{layout.root} cannot be deleted: {error}") from error
    unregister(arguments.name)
    print(f"Cluster {arguments.name!r} is deleted.")
    return 0


# --- status, list, logs, kubeconfig --------------------------------------------------------------


def ask_status(name: str) -> dict[str, Any]:
    """What the supervisor knows. Raises CommandFailed."""
    from k8slite.cluster import control

    try:
        return control.ask(running(name).socket, {"op": "status"})
    except control.NotRunning as error:
        raise CommandFailed(f"cluster {name!r} is starting or stopping: {error}") from error
    except (control.Refused, TimeoutError) as error:
        raise CommandFailed(f"the supervisor does not answer: {error}") from error


def _status(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    if not layout.is_running():
        if arguments.output == "json":
            print_json({"name": arguments.name, "running": False})
        else:
            print(f"Cluster {arguments.name!r} is stopped: k8slite start --name {arguments.name}")
        return 3
    status = ask_status(arguments.name)
    if arguments.output == "json":
        print_json({**status, "running": True})
        return 0
    spec, place = status["spec"], status["place"]
    total = sum(row["memory"] for row in (*status["components"].values(), *status["own"].values()))
    state = "ready" if status["ready_seconds"] is not None else "starting"
    print(
        f"Cluster {arguments.name!r}: {state}, https://127.0.0.1:{place['port']}, "
        f"{spec['runtime']} pods, {spec['proxy']} proxy, {bytes_of(total)} in all"
    )
    print()
    rows = [
        (
            name,
            _coloured(row["state"]),
            _leads(row),
            row["pid"] or "-",
            row["restarts"],
            age(row["seconds"]) if row["pid"] else "-",
            bytes_of(row["memory"]),
            _details(row),
        )
        for name, row in status["components"].items()
    ]
    rows += [
        (name, _coloured("running"), "", row["pid"], 0, "", bytes_of(row["memory"]), "")
        for name, row in status["own"].items()
    ]
    print_table(
        ("COMPONENT", "STATE", "LEADS", "PID", "RESTARTS", "AGE", "MEMORY", "DETAILS"), rows
    )
    return 0


def _coloured(state: str) -> str:
    return state


def _leads(row: dict[str, Any]) -> str:
    status = row["status"]
    return "yes" if status.get("leading") or status.get("role") == "leader" else ""


def _details(row: dict[str, Any]) -> str:
    """The few figures of each role that people look for."""
    status = row["status"]
    if row.get("dead_seconds") is not None:
        return f"starts again in {row['dead_seconds']:.0f} s"
    shown = {
        "raftkv": ("term", "revision", "raft_applied"),
        "apiserver": ("revision", "requests"),
        "scheduler": ("leader", "transitions", "bound"),
        "controller-manager": ("leader", "transitions"),
        "kubelet": ("pods",),
        "proxy": ("ports", "syncs"),
    }[row["role"]]
    details = [f"{name.removeprefix('raft_')}={status[name]}" for name in shown if name in status]
    if status.get("problems"):
        details.append(f"problems={len(status['problems'])}: {status['problems'][0]}")
    return " ".join(details)


def _list(arguments: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = []
    for name, layout in known():
        try:
            spec, place = layout.read()
        except NoSuchCluster as error:
            found.append({"name": name, "state": "broken", "error": str(error)})
            continue
        state = "running" if layout.is_running() else "stopped"
        found.append(
            {"name": name, "state": state, "port": place.port, "dir": str(layout.root),
             **{k: v for k, v in attrs.asdict(spec).items() if k not in ("name", "port")}}
        )  # fmt: skip
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


def _logs(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    path = layout.log(arguments.component)
    if "/" in arguments.component or not path.exists():
        there = sorted(p.stem for p in layout.logs.glob("*.log"))
        raise CommandFailed(f"no log of {arguments.component!r}; there are {', '.join(there)}")
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
        position = file.tell()
    if arguments.tail >= 0:
        lines = lines[len(lines) - arguments.tail :]
    for line in lines:
        _print_record(line, arguments.output)
    if not arguments.follow:
        return 0
    sys.stdout.flush()
    return _follow(path, position, arguments.output)


def _follow(path: Path, position: int, output: str) -> int:
    file = open(path, "rb")  # noqa: SIM115  # another file takes its place when it is begun anew
    file.seek(position)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            line = file.readline()
            if line.endswith(b"\n"):
                _print_record(line, output)
                continue
            file.seek(-len(line), os.SEEK_CUR)
            sys.stdout.flush()
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                    file.close()
                    file = open(path, "rb")  # noqa: SIM115
                    continue
            time.sleep(FOLLOW_SECONDS)
    file.close()
    return 130


LEVEL_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red"}


def _print_record(line: bytes, output: str) -> None:
    text = line.decode(errors="replace").rstrip("\n")
    if output == "json":
        print(text)
        return
    try:
        record = json.loads(text)
        level = record["level"]
        words = f"{record['time']} {level:7} {record['logger']}: {record['message']}"
    except (ValueError, KeyError, TypeError):
        print(text)  # what came from outside of our logging, such as an interpreter's last words
        return
    print(colour(words, LEVEL_COLOURS[level]) if level in LEVEL_COLOURS else words)
    if record.get("error"):
        print(record["error"])


def _kubeconfig(arguments: argparse.Namespace) -> int:
    layout = existing(arguments.name)
    try:
        sys.stdout.write(layout.kubeconfig.read_text())
    except FileNotFoundError:
        raise CommandFailed(
            f"cluster {arguments.name!r} has never been ready: k8slite start --name "
            f"{arguments.name}"
        ) from None
    return 0


USER_ERRORS = (InvalidSpec, NoSuchCluster)
