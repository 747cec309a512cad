"""The loop from NetworkPolicies to nft, for the node in whose network namespace it runs.

Level-triggered: a change only says that the plan may differ. Pods and namespaces are watched from
the first policy on; a cluster without policies pays for one quiet watch.

A failure is tried again, and what was enforced before still is: rules change in one transaction.
When somebody flushes the rules they are written anew at the next look.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Sequence
from typing import Final

import trio

from k8slite.api.kinds import NAMESPACES, NETWORK_POLICIES, PODS
from k8slite.api.meta import Obj
from k8slite.client.informer import Informer, SharedInformers
from k8slite.network.policy.plan import PodView, make_plan, view_of_pod
from k8slite.network.policy.rules import TABLE, Ruleset, changes, make_rules

__all__ = ["Enforcer", "PolicyWriter", "WriteFailed", "trim_pod"]

log = logging.getLogger(__name__)

GATHER_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 30.0


class WriteFailed(Exception):
    """nft refused, or is not there; the message says what it said."""


class PolicyWriter:
    """Remembers what it wrote. `command` comes before nft: a way into a namespace, for tests."""

    def __init__(self, *, command: Sequence[str] = ()) -> None:
        self._command = list(command)
        self._written: Ruleset | None = None

    async def write(self, wanted: Ruleset) -> None:
        """Raises WriteFailed."""
        text = changes(self._written, wanted)
        if text:
            self._written = None  # what is there is not known while, and if, this fails
            await self._nft("-f", "-", text=text)
        self._written = wanted

    async def look(self) -> None:
        """Forget what was written where it is gone."""
        try:
            there = await self._nft("list", "chain", *TABLE.split(), "forward")
        except WriteFailed:
            there = ""
        if self._written is not None and "@ingress" not in there:
            log.warning("rules of network policies are gone, writing them again")
            self._written = None

    async def cleanup(self) -> None:
        """Remove our table, also that of an earlier life. Raises WriteFailed."""
        self._written = None
        await self._nft("-f", "-", text=f"add table {TABLE}\ndelete table {TABLE}\n")

    async def _nft(self, *arguments: str, text: str = "") -> str:
        command = [*self._command, "nft", *arguments]
        try:
            done = await trio.run_process(
                command,
                stdin=text.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise WriteFailed(f"network policies need nft: {error}") from error
        if done.returncode:
            raise WriteFailed(f"nft failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode(errors="replace")


class Enforcer:
    """Keeps the rules of a node's pods until cancelled."""

    def __init__(self, informers: SharedInformers, node: str, writer: PolicyWriter) -> None:
        self._informers = informers
        self._node = node
        self._writer = writer
        self._policies = informers.of(NETWORK_POLICIES)
        self._policies.add_handler(self._policy_changed)
        self._pods: Informer | None = None
        self._namespaces: Informer | None = None
        self._views: dict[str, PodView] = {}
        self._dirty = trio.Event()
        self.closed = 0
        """Pods of this node that are closed in one direction at least."""
        self.problems: list[str] = []

    def _policy_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or old.get("spec") != new.get("spec"):
            self._dirty.set()

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        pod = new or old
        assert pod is not None
        key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        view = view_of_pod(pod) if new is not None else None
        if view != self._views.get(key):
            if view is None:
                del self._views[key]
            else:
                self._views[key] = view
            self._dirty.set()

    def _namespace_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old is None or new is None or _labels(old) != _labels(new):
            self._dirty.set()

    async def run(self) -> None:
        await self._policies.wait_synced()
        await self._wait_for_policies()
        while True:
            self._dirty = trio.Event()
            again = LOOK_SECONDS if await self._enforce() else RETRY_SECONDS
            await trio.sleep(GATHER_SECONDS)
            with trio.move_on_after(again):
                await self._dirty.wait()
                continue
            await self._writer.look()

    async def _wait_for_policies(self) -> None:
        if not len(self._policies):
            with contextlib.suppress(WriteFailed):  # no nft: nothing was ever written
                await self._writer.cleanup()
        while not len(self._policies):
            self._dirty = trio.Event()
            await self._dirty.wait()
        self._pods = self._informers.of(PODS, trim=trim_pod)
        self._namespaces = self._informers.of(NAMESPACES)
        self._pods.add_handler(self._pod_changed)
        self._namespaces.add_handler(self._namespace_changed)
        await self._pods.wait_synced()
        await self._namespaces.wait_synced()

    async def _enforce(self) -> bool:
        assert self._namespaces is not None
        pods = [self._views[key] for key in sorted(self._views)]
        plan = make_plan(self._policies.list(), pods, self._namespaces.list(), self._node)
        problems: list[str] = []
        try:
            await self._writer.write(make_rules(plan))
            self.closed = len(plan.ingress.keys() | plan.egress.keys())
        except WriteFailed as error:
            problems = [str(error)]
            if problems != self.problems:
                log.warning("node=%s problem=%s", self._node, error)
        self.problems = problems
        return not problems


def _labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def trim_pod(pod: Obj) -> Obj:
    """What policies see of a pod, so that a node keeps little of all pods."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "deletionTimestamp")

    def ports(containers: list[Obj] | None) -> list[Obj]:
        return [{"ports": each["ports"]} for each in containers or () if each.get("ports")]

    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {
            "nodeName": spec.get("nodeName", ""),
            "hostNetwork": spec.get("hostNetwork", False),
            "containers": ports(spec.get("containers")),
            "initContainers": ports(spec.get("initContainers")),
        },
        "status": {"podIP": status.get("podIP", ""), "phase": status.get("phase", "")},
    }
