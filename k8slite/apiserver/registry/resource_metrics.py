"""get and list of metrics.k8s.io: made of what the kubelets say when somebody asks.

A kubelet that does not answer is left out, and so are its pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from k8slite.api.kinds import NODES, PODS
from k8slite.api.meta import Obj, format_time, key, make_key
from k8slite.api.resource_metrics import NODE_METRICS, node_metrics, pod_metrics
from k8slite.api.status import not_found
from k8slite.api.tables import partial_metadata, to_table
from k8slite.apiserver.call import Call
from k8slite.apiserver.forms import Form, negotiate
from k8slite.apiserver.http.message import Response
from k8slite.apiserver.options import Selection, list_options
from k8slite.apiserver.watch_cache import Entry

__all__ = ["get", "list_"]


async def get(call: Call) -> Response:
    """GET of one node's or pod's metrics."""
    form, options = negotiate(call), list_options(call, call.kind)
    del options  # only checked
    stored = PODS if call.kind.namespaced else NODES
    entry = call.core.mirror.cache(stored).get(call.namespace, call.info.name)
    found = [] if entry is None else await _measure(call, [entry])
    if not found:
        name = f"{call.namespace}/{call.info.name}" if call.kind.namespaced else call.info.name
        raise not_found(call.kind, name)
    return _answer(call, form, found, is_list=False)


async def list_(call: Call) -> Response:
    """GET of all, of a namespace, or of those that selectors choose."""
    form = negotiate(call)
    stored = PODS if call.kind.namespaced else NODES
    selection: Selection = list_options(call, stored).selection
    prefix = f"{call.namespace}/" if call.namespace else ""
    chosen = [
        entry
        for entry in call.core.mirror.cache(stored).select(prefix)
        if selection.empty or selection.matches(entry)
    ]
    return _answer(call, form, await _measure(call, chosen), is_list=True)


async def _measure(call: Call, entries: Iterable[Entry]) -> list[Obj]:
    """The metrics of nodes or pods, of those that have some."""
    objects = [entry.parsed() for entry in entries]
    created = format_time(call.core.now())
    if call.kind == NODE_METRICS:
        names = [o["metadata"]["name"] for o in objects]
        summaries = await call.core.summaries.of(call, names)
        made = (
            node_metrics(node, summaries[name], created)
            for name, node in zip(names, objects, strict=True)
            if name in summaries
        )
    else:
        running = [o for o in objects if o["spec"].get("nodeName")]
        summaries = await call.core.summaries.of(call, [o["spec"]["nodeName"] for o in running])
        measured = dict(_pods(summaries.values()))
        made = (
            pod_metrics(pod, measured[key(pod)], created) for pod in running if key(pod) in measured
        )
    return [each for each in made if each is not None]


def _pods(summaries: Iterable[Obj]) -> Iterator[tuple[str, Obj]]:
    """By namespace and name: static pods have another uid on their node than here."""
    for summary in summaries:
        for measured in summary.get("pods") or ():
            reference = measured["podRef"]
            yield make_key(reference["namespace"], reference["name"]), measured


def _answer(call: Call, form: Form, found: list[Obj], *, is_list: bool) -> Response:
    kind = call.kind
    answer: Obj
    if form.style == "table":
        answer = to_table(kind, found, call.core.now(), {}, form.include_object)
        answer["apiVersion"] = f"meta.k8s.io/{form.version}"
    else:
        items = [partial_metadata(o) for o in found] if form.style == "metadata" else found
        listed = "PartialObjectMetadataList" if form.style == "metadata" else kind.list_kind
        group = f"meta.k8s.io/{form.version}" if form.style == "metadata" else kind.api_version
        whole: Obj = {"kind": listed, "apiVersion": group, "metadata": {}, "items": items}
        answer = whole if is_list else items[0]
    return form.response(200, orjson.dumps(answer))
