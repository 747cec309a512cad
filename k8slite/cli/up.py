"""`k8slite up | start`: make a cluster, start it, and stay with it or leave it running."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from k8slite.cli.common import DEFAULT_NAME, add_command, add_name, existing
from k8slite.cli.output import CommandFailed, several
from k8slite.cluster import starting
from k8slite.cluster.layout import Layout, locate
from k8slite.cluster.spec import APISERVER_FILES, IPVS_SCHEDULERS, PROXIES, ClusterSpec, Place
from k8slite.terminal import colour

__all__ = ["add_commands"]

UP: Final = """\
Start a highly available cluster of ordinary processes on this machine, and wait until it is ready.

Without --detach it runs until Ctrl-C. A cluster that was stopped, or that died with its machine, is
started again with its data: the flags must then be the same or left out.
"""
START: Final = """\
Start a cluster that was stopped, or that died with its machine: with its data, and with the flags
with which it was made.
"""
EXAMPLES: Final = """\
examples:
  k8slite up --detach                              3 control planes, 2 nodes
  k8slite up --detach --control-planes 1 --nodes 0 an API without nodes
  k8slite up --name lab --fast                     a second cluster, quick to miss what dies
"""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_commands(commands: Any) -> None:
    up = add_command(commands, "up", "make a cluster and start it", _up, UP)
    up.epilog = EXAMPLES
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
        choices=("auto", *PROXIES),
        help="how services work (default: auto, what suits the runtime)",
    )
    add(
        "--ipvs-scheduler",
        choices=IPVS_SCHEDULERS,
        metavar="NAME",
        help=f"how --proxy ipvs chooses an endpoint: {', '.join(IPVS_SCHEDULERS)} (default: rr)",
    )
    add(
        "--store",
        choices=("raftkv", "memory"),
        help="where objects are kept: replicated on disk, or in the only apiserver's memory, "
        "gone when it ends (default: raftkv)",
    )
    add(
        "--fast",
        action="store_const",
        const=True,
        help="short leases, and nodes that are missed after seconds, not minutes",
    )
    add("--detach", action="store_true", help="return when the cluster is ready")
    add(
        "--dir",
        type=Path,
        metavar="DIR",
        help="keep everything of the cluster there, in a new or empty directory",
    )
    add(
        "--port",
        type=int,
        metavar="P",
        help="where the apiservers answer on 127.0.0.1 (default: 6443, or a free one)",
    )
    add(
        "--token-auth-file",
        type=Path,
        metavar="FILE",
        help='bearer tokens, as kube-apiserver\'s: lines of token,user,uid,"group,group"',
    )
    for setting, words in APISERVER_FILES.items():
        add(_flag(setting), type=Path, metavar="FILE", help=words)
    add(
        "--scheduler-config",
        type=Path,
        metavar="FILE",
        help="a KubeSchedulerConfiguration: profiles, plugins, extenders",
    )
    add(
        "--controllers",
        metavar="LIST",
        help="which controllers run: '*' is all that are on by default, 'foo' turns one on, "
        "'-foo' off (default: *)",
    )
    start = add_name(add_command(commands, "start", "start a stopped cluster", _start, START))
    start.add_argument("--attach", action="store_true", help="stay until Ctrl-C, then stop it")


def _up(arguments: argparse.Namespace) -> int:
    name, started = arguments.name, time.monotonic()
    layout = locate(name, arguments.dir)
    if layout.is_running():
        raise CommandFailed(starting.running_already(name))
    if layout.exists():
        _check_same(arguments, *layout.read())
        return _run(name, layout, None, attached=not arguments.detach, started=started)
    spec = _new_spec(arguments)
    return _run(name, layout, spec, attached=not arguments.detach, started=started)


def _start(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    layout = existing(arguments.name)
    return _run(arguments.name, layout, None, attached=arguments.attach, started=started)


# --- what is asked for ---------------------------------------------------------------------------


def _new_spec(arguments: argparse.Namespace) -> ClusterSpec:
    """Raises InvalidSpec, CommandFailed."""
    from k8slite.cluster.machine import choose, why_no_ipvs

    tokens = arguments.token_auth_file
    for setting in ("token_auth_file", *APISERVER_FILES):
        path = getattr(arguments, setting)
        if path is not None and not os.access(path, os.R_OK):
            raise CommandFailed(f"{_flag(setting)} {path} cannot be read")
    _check_components(arguments)
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
        port=_or(arguments.port, 0),
        token_auth_file=_absolute(tokens),
        **{setting: _absolute(getattr(arguments, setting)) for setting in APISERVER_FILES},
        ipvs_scheduler=arguments.ipvs_scheduler or "rr",
        scheduler_config=_absolute(arguments.scheduler_config),
        controllers=arguments.controllers or "",
    )
    if spec.proxy == "ipvs":
        missing = why_no_ipvs(spec.ipvs_scheduler)
        if missing:
            raise CommandFailed(f"--proxy ipvs cannot be had here: {missing}")
    if choice.notice and spec.nodes:
        _tell(f"note: {choice.notice}")
    return spec


def _check_components(arguments: argparse.Namespace) -> None:
    """What the components would refuse is told before anything is made. Raises CommandFailed."""
    flag = "--scheduler-config"
    try:
        if arguments.scheduler_config is not None:
            from k8slite.scheduler.loader import check_configuration

            check_configuration(str(arguments.scheduler_config))
        for setting in APISERVER_FILES:
            flag, path = _flag(setting), getattr(arguments, setting)
            if path is not None:
                from k8slite.apiserver.checks import check_file

                check_file(setting, path.read_text())
        flag = "--controllers"
        if arguments.controllers:
            from k8slite.controllers.table import selected

            selected(arguments.controllers.split(","))
    except ValueError as error:
        raise CommandFailed(f"{flag}: {error}") from error


def _flag(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def _check_same(arguments: argparse.Namespace, spec: ClusterSpec, place: Place) -> None:
    """An existing cluster is only started again; flags that would change it are refused."""
    wanted = {
        "--control-planes": (arguments.control_planes, spec.control_planes),
        "--nodes": (arguments.nodes, spec.nodes),
        "--runtime": (_unless_auto(arguments.runtime), spec.runtime),
        "--proxy": (_unless_auto(arguments.proxy), spec.proxy),
        "--ipvs-scheduler": (arguments.ipvs_scheduler, spec.ipvs_scheduler),
        "--store": (arguments.store, spec.store),
        "--fast": (arguments.fast, spec.fast),
        "--port": (arguments.port or None, place.port),
        "--token-auth-file": (_absolute(arguments.token_auth_file) or None, spec.token_auth_file),
        "--scheduler-config": (
            _absolute(arguments.scheduler_config) or None,
            spec.scheduler_config,
        ),
        "--controllers": (arguments.controllers, spec.controllers),
    }
    for setting in APISERVER_FILES:
        given = _absolute(getattr(arguments, setting)) or None
        wanted[_flag(setting)] = (given, getattr(spec, setting))
    for flag, (given, is_now) in wanted.items():
        if given is not None and given != is_now:
            has = f"with {flag} {is_now}" if not isinstance(is_now, bool) else f"without {flag}"
            raise CommandFailed(
                f"cluster {arguments.name!r} exists, {has if is_now != '' else 'without ' + flag}: "
                "leave the flag out to start it again, or delete it first: "
                f"k8slite down --name {arguments.name}"
            )


def _unless_auto(value: str | None) -> str | None:
    return None if value == "auto" else value


# --- one start -----------------------------------------------------------------------------------


def _run(
    name: str, layout: Layout, new: ClusterSpec | None, *, attached: bool, started: float
) -> int:
    """Start the cluster, show what it does, and stay with it if `attached`.

    `new` is what to make; None: what is there is started.
    """
    with _Interrupts() as interrupts:
        try:
            cluster = starting.start(name, layout, new)
            with interrupts.raised():
                notices = cluster.wait_ready(_tell_step)
        except KeyboardInterrupt:
            _tell_note(cluster.stop())
            fate = "not made" if cluster.made else "stopped"
            _tell(f"interrupted; cluster {name!r} is {fate}")
            return 130
        except starting.CannotStart as error:
            raise CommandFailed(str(error)) from error
        if not attached:
            cluster.detach()
        spec, _ = layout.read()
        _tell_ready(name, spec, layout, time.monotonic() - started, notices)
        if not attached:
            return 0
        print("Ctrl-C stops it.", flush=True)
        return _stay(cluster, interrupts)


def _stay(cluster: starting.Started, interrupts: _Interrupts) -> int:
    """Until Ctrl-C, SIGTERM, or the cluster's end."""
    try:
        with interrupts.raised():
            cluster.wait_end()
    except KeyboardInterrupt:
        _tell(f"\nstopping cluster {cluster.name!r} ...")
        _tell_note(cluster.stop())
        print(
            f"Cluster {cluster.name!r} is stopped; its data is kept (k8slite start, k8slite down)."
        )
        return 0
    raise CommandFailed(
        f"cluster {cluster.name!r} has ended: by `k8slite stop` or `down`, or see its logs"
    )


def _tell_step(seconds: float, step: str) -> None:
    stamp = colour(f"{seconds:5.2f} s", "dim", sys.stderr)
    _tell(f"  {stamp}  {step}")


def _tell_note(note: str) -> None:
    if note:
        _tell(note)


def _tell(words: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody looks; the cluster is wanted all the same
        sys.stderr.write(f"{words}\n")


def _tell_ready(
    name: str, spec: ClusterSpec, layout: Layout, seconds: float, notices: list[str]
) -> None:
    for notice in notices:
        _tell(f"{colour('warning', 'yellow', sys.stderr)}: {notice}; all works while the others do")
    what = f"{several(spec.control_planes, 'control plane')}, {several(spec.nodes, 'node')}"
    done = colour(f"Cluster {name!r} is ready", "green")
    print(f"{done} after {seconds:.2f} s: {what}, {spec.runtime} pods, {spec.proxy} proxy.")
    print(f"export KUBECONFIG={shlex.quote(str(layout.kubeconfig))}", flush=True)


class _Interrupts:
    """Ctrl-C and its kin interrupt only where that leaves nothing half done."""

    def __init__(self) -> None:
        self._came = False
        self._may_raise = False
        self._before: list[Any] = []

    def __enter__(self) -> _Interrupts:
        self._before = [signal.signal(number, self._handle) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if self._may_raise:
            self._may_raise = False  # the first one is enough
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Within, an interrupt that comes or has come is KeyboardInterrupt."""
        if self._came:
            raise KeyboardInterrupt
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False
