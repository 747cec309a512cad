"""Extenders: services outside that have a say, asked by HTTP with JSON as kube-scheduler does.

An extender may take nodes away, rate those that are left, choose among victims, and bind. One that
is `ignorable` is left out when it does not answer; any other makes the pod fail.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson
import trio

from k8slite.api.meta import name
from k8slite.client.errors import Unreachable
from k8slite.client.http import STREAM_ERRORS, ConnectionLost, encode_request
from k8slite.client.pool import Pool
from k8slite.scheduler.config import ExtenderConfig
from k8slite.scheduler.decide import Feasible
from k8slite.scheduler.framework import SCORE_MAX, BindFailed, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.preempt import Candidate
from k8slite.scheduler.snapshot import Snapshot
from raftkv.host import Address, Host

__all__ = ["ExtenderFailed", "Extenders"]

log = logging.getLogger(__name__)
EXTENDER_SCORE_MAX = 10
CONNECTIONS_MAX = 16
OK = 200


class ExtenderFailed(Exception):
    """No answer, or one that says or is an error."""


class Extender:
    """One of them, and its connections."""

    def __init__(self, config: ExtenderConfig, host: Host) -> None:
        self.config = config
        parts = urlsplit(config.url)
        secure = parts.scheme == "https"
        address = Address(parts.hostname or "", parts.port or (443 if secure else 80))
        self._host_header = parts.netloc
        self._path = parts.path
        tls = _tls(config) if secure else None
        self._pool = Pool(host.net, (address,), tls, host.rng, connections_max=CONNECTIONS_MAX)

    async def aclose(self) -> None:
        await self._pool.aclose()

    def cares(self, pod: PodInfo) -> bool:
        """Extenders of certain resources are asked about pods that request these."""
        managed = self.config.managed
        return not managed or any(resource in pod.requests for resource in managed)

    async def ask(self, verb: str, question: Any) -> Any:
        """The answer to one POST. Raises ExtenderFailed."""
        headers = (("Content-Type", "application/json"), ("Accept", "application/json"))
        data = encode_request(
            "POST", f"{self._path}/{verb}", self._host_header, headers, orjson.dumps(question)
        )
        try:
            with trio.fail_after(self.config.seconds):
                connection = await self._pool.acquire()
                try:
                    head = await connection.request(data)
                    body = await connection.receive_all()
                finally:
                    await self._pool.release(connection)
            if head.status != OK:
                raise ExtenderFailed(f"failed {verb} with extender, code {head.status}")
            return orjson.loads(body)
        except (ConnectionLost, Unreachable, trio.TooSlowError, *STREAM_ERRORS) as error:
            told = str(error) or "no answer in time"
            raise ExtenderFailed(f"Post {self.config.url}/{verb}: {told}") from None
        except orjson.JSONDecodeError as error:
            raise ExtenderFailed(f"Post {self.config.url}/{verb}: {error}") from None


def _tls(config: ExtenderConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=config.ca.decode() or None)
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Extenders:
    """All of them, in the order of the configuration."""

    def __init__(self, configs: Sequence[ExtenderConfig], host: Host) -> None:
        self._all = [Extender(config, host) for config in configs]

    async def aclose(self) -> None:
        for extender in self._all:
            await extender.aclose()

    def care(self, pod: PodInfo) -> bool:
        return any(extender.cares(pod) for extender in self._all)

    async def filter(self, pod: PodInfo, feasible: Feasible) -> None:
        """Take away nodes that extenders refuse. Raises ExtenderFailed."""
        for extender in self._all:
            config = extender.config
            if not feasible.nodes or not config.filter_verb or not extender.cares(pod):
                continue
            try:
                answer = await extender.ask(config.filter_verb, _question(extender, pod, feasible))
                _apply(_lower(answer), feasible, config.url)
            except ExtenderFailed as error:
                if not config.ignorable:
                    raise
                log.warning("extender=%s skipped error=%s", config.url, error)

    async def prioritize(self, pod: PodInfo, feasible: Feasible) -> dict[str, int]:
        """What to add to the score of each node; who does not answer adds nothing."""
        totals: dict[str, int] = {}
        for extender in self._all:
            config = extender.config
            if not config.prioritize_verb or not extender.cares(pod):
                continue
            question = _question(extender, pod, feasible)
            try:
                answer = await extender.ask(config.prioritize_verb, question)
            except ExtenderFailed as error:
                log.warning("extender=%s no scores error=%s", config.url, error)
                continue
            factor = config.weight * SCORE_MAX // EXTENDER_SCORE_MAX
            for each in map(_lower, answer or ()):
                own = str(each.get("host"))
                totals[own] = totals.get(own, 0) + int(each.get("score") or 0) * factor
        return totals

    async def preempt(
        self, pod: PodInfo, found: Sequence[Candidate], snapshot: Snapshot
    ) -> list[Candidate]:
        """The candidates that extenders agree to; none if one fails that is not ignorable."""
        left = [*found]
        for extender in self._all:
            config = extender.config
            if not left or not config.preempt_verb or not extender.cares(pod):
                continue
            victims = {
                each.node: {
                    "Pods": [{"UID": v.uid} if config.node_names_only else v.pod
                             for v in each.victims],
                    "NumPDBViolations": each.violations,
                }
                for each in left
            }  # fmt: skip
            kind = "NodeNameToMetaVictims" if config.node_names_only else "NodeNameToVictims"
            try:
                answer = _lower(
                    await extender.ask(config.preempt_verb, {"Pod": pod.pod, kind: victims})
                )
            except ExtenderFailed:
                if config.ignorable:
                    continue
                return []
            left = _agreed(left, answer.get("nodenametometavictims") or {}, snapshot)
        return left

    async def bind(self, pod: PodInfo, node: str) -> bool:
        """True if an extender has bound the pod. Raises BindFailed."""
        for extender in self._all:
            config = extender.config
            if not config.bind_verb or not extender.cares(pod):
                continue
            question = {
                "PodName": name(pod.pod),
                "PodNamespace": pod.namespace,
                "PodUID": pod.uid,
                "Node": node,
            }
            try:
                answer = _lower(await extender.ask(config.bind_verb, question))
            except ExtenderFailed as error:
                raise BindFailed(str(error)) from None
            if answer.get("error"):
                raise BindFailed(str(answer["error"]))
            return True
        return False


def _question(extender: Extender, pod: PodInfo, feasible: Feasible) -> Any:
    if extender.config.node_names_only:
        return {"Pod": pod.pod, "NodeNames": [node.name for node in feasible.nodes]}
    items = [node.node for node in feasible.nodes]
    return {"Pod": pod.pod, "Nodes": {"apiVersion": "v1", "kind": "NodeList", "items": items}}


def _apply(answer: Mapping[str, Any], feasible: Feasible, url: str) -> None:
    if answer.get("error"):
        raise ExtenderFailed(str(answer["error"]))
    names = answer.get("nodenames")
    if names is None and answer.get("nodes") is not None:
        names = [name(node) for node in _lower(answer["nodes"]).get("items") or ()]
    kept = dict.fromkeys(names or ())
    failed = answer.get("failednodes") or {}
    hopeless = answer.get("failedandunresolvablenodes") or {}
    nodes, totals = feasible.nodes, feasible.totals
    feasible.nodes, feasible.totals = [], []
    for node, total in zip(nodes, totals, strict=True):
        if node.name in kept and node.name not in failed and node.name not in hopeless:
            feasible.nodes.append(node)
            feasible.totals.append(total)
            continue
        reason = hopeless.get(node.name) or failed.get(node.name) or "node(s) refused by extender"
        resolvable = node.name not in hopeless
        feasible.rejected[node.name] = Rejection((str(reason),), resolvable), url


def _agreed(
    found: Sequence[Candidate], answer: Mapping[str, Any], snapshot: Snapshot
) -> list[Candidate]:
    left = []
    for each in found:
        said = answer.get(each.node)
        if said is None:
            continue
        told = _lower(said)
        uids = [_lower(pod).get("uid", "") for pod in told.get("pods") or ()]
        node = snapshot.node(each.node)
        there = {} if node is None else node.pods
        victims = tuple(there[uid] for uid in uids if uid in there)
        left.append(Candidate(each.node, victims, int(told.get("numpdbviolations") or 0)))
    return left


def _lower(answer: Any) -> dict[str, Any]:
    """Extenders written in Go answer in capitals, others in the API's spelling."""
    return {str(k).lower(): v for k, v in answer.items()} if isinstance(answer, dict) else {}
