"""What the kubelets say of usage (stats/v1alpha1), asked when somebody wants to know.

Owns: what each said last, for FRESH_SECONDS; who asks meanwhile gets that. Nobody asks, nothing is
done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import orjson
import trio
from attrs import define, field

from k8slite.api.kinds import NODES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.apiserver.call import Call
from k8slite.apiserver.streaming.kubelets import kubelet_address, open_kubelet
from k8slite.streaming.bytes import BROKEN

__all__ = ["Summaries"]

log = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
ANSWER_SECONDS = 5.0
SUMMARY_BYTES_MAX = 32 * 1024 * 1024
KUBELETS_AT_ONCE = 16
PATH = "/stats/summary?only_cpu_and_memory=true"


@define
class _Heard:
    """`done` is set when the answer, or none, is there."""

    at: float
    done: trio.Event = field(factory=trio.Event)
    summary: Obj | None = None


@define
class Summaries:
    """What kubelets said, by node."""

    _heard: dict[str, _Heard] = field(factory=dict)

    async def of(self, call: Call, nodes: Iterable[str]) -> dict[str, Obj]:
        """Of those nodes that answer."""
        limit = trio.CapacityLimiter(KUBELETS_AT_ONCE)
        wanted = dict.fromkeys(nodes)
        async with trio.open_nursery() as nursery:
            for node in wanted:
                nursery.start_soon(self._ask, call, node, limit)
        for gone in self._heard.keys() - call.core.mirror.cache(NODES).entries.keys():
            del self._heard[gone]
        found = {node: self._heard[node].summary for node in wanted if node in self._heard}
        return {node: summary for node, summary in found.items() if summary is not None}

    async def _ask(self, call: Call, node: str, limit: trio.CapacityLimiter) -> None:
        known = self._heard.get(node)
        if known is not None and trio.current_time() < known.at + FRESH_SECONDS:
            await known.done.wait()
            return
        heard = self._heard[node] = _Heard(trio.current_time())
        try:
            async with limit:
                heard.summary = await _read(call, node)
        except (ApiError, *BROKEN, trio.TooSlowError, orjson.JSONDecodeError) as error:
            log.info("no usage of node=%s: %s", node, error)
        finally:
            heard.done.set()


async def _read(call: Call, node: str) -> Obj:
    """Raises ApiError, BROKEN's errors, TooSlowError, JSONDecodeError."""
    with trio.fail_after(ANSWER_SECONDS):
        address = kubelet_address(call, node)
        backend = await open_kubelet(call, address)
        try:
            await backend.request("GET", PATH, [(b"Host", str(address).encode())])
            body = await backend.read_rest(SUMMARY_BYTES_MAX)
        finally:
            await backend.aclose()
    if backend.status != 200:
        raise ApiError(502, "", f"its kubelet answers {backend.status}: {body[:200]!r}", {})
    summary: Obj = orjson.loads(body)
    return summary
