"""The demo's steps, in order. It raises NotHeld at the first thing that does not hold."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from k8slite.api.kinds import KIND, LEASES, PODS
from k8slite.api.meta import Obj, name
from k8slite.client.api import Api
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.cluster.cleanup import leftovers
from k8slite.cluster.layout import Layout
from k8slite.cluster.spec import ClusterSpec, Place
from k8slite.demo.load import Writes, longest_gap, run_writers
from k8slite.demo.requests import Door, Requests, fetch, run_requests
from k8slite.demo.rules import rules_of_ours
from k8slite.demo.show import NotHeld, Show
from k8slite.demo.tools import Tools, find_kubectl
from raftkv.host import Address
from raftkv.os_host import OsHost, load_tls

__all__ = ["tell"]

NAME: Final = "demo"
WEB: Final = "web-demo"
WRITES: Final = "writes-demo"
REQUESTS: Final = 24
RECOVERY_SECONDS: Final = 90.0
SETTLE_SECONDS: Final = 2.0
DEPLOYMENTS: Final = KIND["deployments.apps"]
EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "web.yaml"


NEW_POD: Final[Obj] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "after-scheduler", "namespace": WEB},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "wait", "image": "busybox", "command": ["sleep", "3600"]}],
    },
}


@attrs.define
class Recovery:
    """One row of the table at the end. Seconds, and counts since the kill."""

    killed: str
    seconds: float
    write_gap: float
    failed_requests: int


@attrs.define
class Stage:
    """What every step needs."""

    show: Show
    tools: Tools
    layout: Layout
    spec: ClusterSpec
    place: Place
    api: Api
    writes: Writes = attrs.field(factory=Writes)
    requests: Requests = attrs.field(factory=Requests)
    recoveries: list[Recovery] = attrs.field(factory=list)


def tell(up: list[str]) -> int:
    """Run the demo; `up` are flags for `k8slite up`. The exit code."""
    show = Show()
    home = Path(tempfile.mkdtemp(prefix="k8slite-demo-"))
    try:
        trio.run(_tell, show, home, up)
    except NotHeld as error:
        show.verdict(str(error))
        show.lines(f"The logs are in {home / NAME / 'logs'}")
        return 1
    except KeyboardInterrupt:
        show.verdict("interrupted")
        shutil.rmtree(home, ignore_errors=True)
        return 130
    shutil.rmtree(home, ignore_errors=True)  # `down` has emptied it
    show.verdict("")
    return 0


async def _tell(show: Show, home: Path, up: list[str]) -> None:
    environment = {"K8SLITE_HOME": str(home), "KUBECONFIG": str(home / NAME / "kubeconfig")}
    layout = Layout(home / NAME)
    tools = Tools(show, NAME, layout.socket, environment, find_kubectl())
    rules_before = rules_of_ours()
    try:
        await _start(show, tools, up)
        spec, place = layout.read()
        async with _open_api(layout, place) as api:
            await _play(Stage(show, tools, layout, spec, place, api))
    except BaseException:
        with trio.CancelScope(shield=True):
            await _end_quietly(tools)
        raise
    await _end(show, tools, layout, rules_before)


# --- birth ---------------------------------------------------------------------------------------


async def _start(show: Show, tools: Tools, up: list[str]) -> None:
    show.title("A cluster of separate processes")
    with show.step("k8slite up --detach " + " ".join(up)) as results:
        results.append(await tools.k8slite("up", "--detach", *up))
    with show.step("Every component runs, one of each kind leads") as results:
        results.append(await _wait_roles(tools))
    await tools.kubectl("get", "nodes", "-o", "wide")


async def _wait_roles(tools: Tools) -> str:
    """`up` waits for nodes, not for every election: on a busy machine one may still go on."""
    with trio.move_on_after(RECOVERY_SECONDS):
        while True:
            with contextlib.suppress(NotHeld):
                return _roles(await tools.status())
            await trio.sleep(0.2)
    return _roles(await tools.status())


def _roles(status: dict[str, Any]) -> str:
    """One line a role: how many processes, who leads, how much memory. Raises NotHeld."""
    rows: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for component, row in status["components"].items():
        if row["state"] != "running":
            raise NotHeld(f"{component} is {row['state']}")
        rows.setdefault(row["role"], []).append((component, row))
    lines = []
    for role, members in rows.items():
        leaders = [c for c, row in members if _leads(row)]
        if role in ("raftkv", "scheduler", "controller-manager") and len(leaders) != 1:
            raise NotHeld(f"not one {role} leads, but {leaders}")
        memory = sum(row["memory"] for _, row in members) / 1e6
        leads = f", {leaders[0]} leads" if leaders else ""
        lines.append(f"{len(members)} x {role:20} {memory:4.0f} MB{leads}")
    return "\n".join(lines)


def _leads(row: dict[str, Any]) -> bool:
    return bool(row["status"].get("leading") or row["status"].get("role") == "leader")


@asynccontextmanager
async def _open_api(layout: Layout, place: Place) -> AsyncIterator[Api]:
    """A client as any other program's: the administrator, at the address of the kubeconfig."""
    async with open_client(_client_config(layout, place.api), OsHost("demo")) as api:
        yield api


def _client_config(layout: Layout, address: Address) -> ClientConfig:
    pki = layout.pki
    tls = load_tls(
        ca=str(pki / "ca.crt"), certificate=str(pki / "admin.crt"), key=str(pki / "admin.key")
    )
    return ClientConfig(endpoints=(address,), tls=tls.client, patience_seconds=5.0)


# --- life ----------------------------------------------------------------------------------------


async def _play(stage: Stage) -> None:
    await _deploy(stage)
    door = await _reach(stage)
    await stage.tools.kubectl("create", "namespace", WRITES)
    stage.show.title("Leaders are killed, under steady writes and requests to the Service")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_writers, stage.api, WRITES, stage.writes)
            nursery.start_soon(run_requests, door, stage.requests)
            await trio.sleep(SETTLE_SECONDS)
            await _kill_raft_leader(stage)
            await _kill_scheduler(stage)
            await _kill_controller_manager(stage)
            await _kill_apiserver(stage)
            await _kill_container(stage)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        found: BaseException | None = group.subgroup((NotHeld, KeyboardInterrupt))
        if found is None:
            raise
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None
    _tell_recoveries(stage)
    await _verify_writes(stage)
    await _scale_and_delete(stage)


async def _deploy(stage: Stage) -> None:
    kubectl = stage.tools.kubectl
    stage.show.title("The real kubectl")
    await kubectl("create", "namespace", WEB)
    await kubectl("-n", WEB, "apply", "-f", str(EXAMPLE))
    await kubectl("-n", WEB, "rollout", "status", "deployment/web", "--timeout=60s")
    await kubectl("-n", WEB, "expose", "deployment", "web", "--name=web-outside", "--type=NodePort")
    await kubectl("-n", WEB, "get", "pods", "-o", "wide")


async def _reach(stage: Stage) -> Door:
    """Through the Service's own address and through a port of each node; the former."""
    stage.show.title("Pods behind a Service")
    kubectl = stage.tools.kubectl
    path = "jsonpath={.spec.clusterIP} {.spec.ports[0].port} {.spec.ports[0].nodePort}"
    inner = (await kubectl("-n", WEB, "get", "service", "web", "-o", path, quiet=True)).split()
    outer = await kubectl("-n", WEB, "get", "service", "web-outside", "-o", path, quiet=True)
    netns = _node_namespace(stage)
    door = Door(inner[0], int(inner[1]), netns)
    await _ask(stage, "ClusterIP", door, 2)
    for number in range(1, stage.spec.nodes + 1):
        node = Door(stage.place.node_address(number), int(outer.split()[2]))
        await _ask(stage, f"NodePort of node-{number}", node, 2)
    return door


def _node_namespace(stage: Stage) -> str | None:
    """Where service addresses exist: on the nodes, which are namespaces of their own as root."""
    if not stage.spec.bridged:
        return None
    from k8slite.network.addresses import namespace_name
    from k8slite.network.namespaces import path_of

    return path_of(namespace_name(stage.layout.network(stage.spec.name), "node-1"))


async def _ask(stage: Stage, what: str, door: Door, pods_min: int) -> None:
    where = " from node-1" if door.netns else ""
    with stage.show.step(f"{REQUESTS} requests to the {what}, {door}{where}") as results:
        answers: Counter[str] = Counter()
        with _bounded(f"{door} does not answer"):
            while not answers:
                try:
                    answers[await fetch(door)] += 1
                except (OSError, trio.TooSlowError):
                    await trio.sleep(0.1)  # the proxies may not have heard of it yet
        for _ in range(REQUESTS - 1):
            try:
                answers[await fetch(door)] += 1
            except (OSError, trio.TooSlowError) as error:
                raise NotHeld(f"a request to {door} failed: {error}") from error
        results.append("  ".join(f"{pod}: {count}" for pod, count in sorted(answers.items())))
    if len(answers) < pods_min:
        raise NotHeld(f"only {len(answers)} of the pods answered at {door}")


@contextmanager
def _bounded(words: str) -> Iterator[None]:
    try:
        with trio.fail_after(RECOVERY_SECONDS):
            yield
    except trio.TooSlowError:
        raise NotHeld(f"{words} after {RECOVERY_SECONDS:.0f} s") from None


# --- chaos ---------------------------------------------------------------------------------------


async def _recover(
    stage: Stage,
    what: str,
    kill: Callable[[], Awaitable[str]],
    recovered: Callable[[str], Awaitable[str]],
) -> None:
    """Kill, wait until `recovered` says so, note how long it took, and wait for the dead one."""
    with stage.show.step(f"SIGKILL to {what}") as results:
        killed_at = trio.current_time()
        victim = await kill()
        with _bounded(f"{what}: no recovery"):
            outcome = await recovered(victim)
            seconds = trio.current_time() - killed_at
            written = stage.writes.total
            while stage.writes.total < written + 10:  # and writes flow
                await trio.sleep(0.02)
        now = trio.current_time()
        gap = longest_gap(stage.writes.acknowledged_at, killed_at, now)
        failed = stage.requests.failed_since(killed_at)
        stage.recoveries.append(Recovery(f"{what} ({victim})", seconds, gap, failed))
        results.append(f"{victim} is dead; {outcome} after {seconds:.1f} s")
        results.append(
            f"longest pause between acknowledged writes {gap:.2f} s, failed requests {failed}"
        )
        with _bounded(f"{victim} does not come back"):
            await _back(stage, victim)


async def _back(stage: Stage, component: str) -> None:
    while True:
        row = (await stage.tools.status())["components"].get(component)
        if row is None or row["state"] == "running":
            return
        await trio.sleep(0.2)


async def _new_leader(stage: Stage, role: str, victim: str) -> str:
    while True:
        components: dict[str, Any] = (await stage.tools.status())["components"]
        for component, row in components.items():
            if row["role"] == role and component != victim and _leads(row):
                return component
        await trio.sleep(0.05)


async def _kill_raft_leader(stage: Stage) -> None:
    async def recovered(victim: str) -> str:
        leader = await _new_leader(stage, "raftkv", victim)
        return f"{leader} leads the store"

    await _recover(stage, "the Raft leader", lambda: stage.tools.kill("raft-leader"), recovered)


async def _kill_scheduler(stage: Stage) -> None:
    async def recovered(victim: str) -> str:
        await _create(stage, NEW_POD)
        while True:
            pod = await _get(stage, PODS, "after-scheduler", WEB)
            if pod is not None and pod["spec"].get("nodeName"):
                break
            await trio.sleep(0.05)
        holder = await _holder(stage, "kube-scheduler")
        if holder == victim:
            raise NotHeld(f"{victim} is dead and still holds the Lease")
        return f"{holder} leads, and has bound a new pod to {pod['spec']['nodeName']}"

    await _recover(
        stage, "the active scheduler", lambda: stage.tools.kill("scheduler-leader"), recovered
    )


async def _kill_controller_manager(stage: Stage) -> None:
    async def recovered(victim: str) -> str:
        await stage.tools.kubectl("-n", WEB, "scale", "deployment/web", "--replicas=4", quiet=True)
        while True:
            web = await _get(stage, DEPLOYMENTS, "web", WEB)
            if web is not None and web["status"].get("readyReplicas") == 4:
                break
            await trio.sleep(0.05)
        holder = await _holder(stage, "kube-controller-manager")
        if holder == victim:
            raise NotHeld(f"{victim} is dead and still holds the Lease")
        return f"{holder} leads, and has scaled the Deployment to 4 ready pods"

    await _recover(
        stage,
        "the active controller manager",
        lambda: stage.tools.kill("controller-manager-leader"),
        recovered,
    )


async def _kill_apiserver(stage: Stage) -> None:
    async def recovered(victim: str) -> str:
        await stage.tools.kubectl("-n", WEB, "get", "pods", quiet=True)
        return "the others answer kubectl"

    target = f"apiserver-{min(2, stage.spec.control_planes)}"
    await _recover(stage, "an apiserver", lambda: stage.tools.kill(target), recovered)


async def _kill_container(stage: Stage) -> None:
    pods = (await stage.api.list(PODS, WEB, labels="app=web")).items
    pod = next((p for p in pods if p["spec"]["nodeName"] == "node-1"), pods[0])
    node, container = pod["spec"]["nodeName"], pod["status"]["containerStatuses"][0]
    restarts = container["restartCount"]

    async def kill() -> str:
        os.kill(_pid(stage.layout, node, container["containerID"]), signal.SIGKILL)
        return f"{name(pod)} on {node}"

    async def recovered(victim: str) -> str:
        while True:
            now = await _get(stage, PODS, name(pod), WEB)
            if now is not None:
                status = now["status"]["containerStatuses"][0]
                if status["restartCount"] > restarts and status["ready"]:
                    return "its container is restarted and ready"
            await trio.sleep(0.05)

    await _recover(stage, "a node's container", kill, recovered)


def _pid(layout: Layout, node: str, container_id: str) -> int:
    """The container's first process, as its runtime has written it down."""
    directory = layout.node(node) / "runtime" / "containers" / container_id.rpartition("/")[2]
    pid: int = json.loads((directory / "state.json").read_text())["pid"]
    return pid


async def _get(stage: Stage, kind: Any, each: str, namespace: str) -> Obj | None:
    try:
        return await stage.api.get(kind, each, namespace)
    except REQUEST_ERRORS:
        return None


async def _create(stage: Stage, obj: Obj) -> None:
    """As a controller would: until it is there."""
    while await _get(stage, PODS, name(obj), WEB) is None:
        with contextlib.suppress(*REQUEST_ERRORS):
            await stage.api.create(PODS, obj)


async def _holder(stage: Stage, lease: str) -> str:
    found = await stage.api.get(LEASES, lease, "kube-system")
    holder: str = found["spec"].get("holderIdentity") or ""
    return holder


# --- what must have held -------------------------------------------------------------------------


def _tell_recoveries(stage: Stage) -> None:
    show = stage.show
    show.title("How long each recovery took")
    heading = f"{'KILLED':60}{'RECOVERED AFTER':>16}{'WRITES PAUSED':>15}{'FAILED REQUESTS':>17}"
    show.lines(heading)
    for each in stage.recoveries:
        show.lines(
            f"{each.killed:60}{each.seconds:14.1f} s{each.write_gap:13.2f} s"
            f"{each.failed_requests:17}"
        )
    answers = stage.requests.answers
    failed = len(stage.requests.failed_at)
    show.lines(
        f"The Service answered {sum(answers.values())} requests from {len(answers)} pods; "
        f"{failed} failed."
    )


async def _verify_writes(stage: Stage) -> None:
    show, writes = stage.show, stage.writes
    show.title("Every acknowledged write is there")
    for number in range(1, stage.spec.control_planes + 1):
        address = stage.place.apiserver(number)
        with show.step(f"{writes.total} acknowledged writes, seen through apiserver-{number}") as r:
            async with open_client(_client_config(stage.layout, address), OsHost("demo")) as api:
                objects = await writes.verify(api, WRITES)
            r.append(
                f"{objects} objects; {len(writes.unknown)} writes without an answer, "
                f"{writes.refused} refused: none of them counted"
            )


async def _scale_and_delete(stage: Stage) -> None:
    kubectl = stage.tools.kubectl
    stage.show.title("Scale and delete")
    await kubectl("-n", WEB, "scale", "deployment/web", "--replicas=5")
    await kubectl("-n", WEB, "rollout", "status", "deployment/web", "--timeout=60s")
    await kubectl("-n", WEB, "get", "pods", "-o", "wide")
    await kubectl("-n", WEB, "delete", "-f", str(EXAMPLE))
    with stage.show.step(f"kubectl delete namespace {WEB} {WRITES}"):
        await kubectl("delete", "namespace", WEB, WRITES, "--timeout=60s", quiet=True)


# --- death ---------------------------------------------------------------------------------------


async def _end(show: Show, tools: Tools, layout: Layout, rules_before: list[str]) -> None:
    show.title("The end")
    with show.step("k8slite down"):
        await tools.k8slite("down")
    with show.step("Nothing stays behind: process, namespace, interface, mount, rule, file"):
        left = leftovers(NAME, layout)
        left += [rule for rule in rules_of_ours() if rule not in rules_before]
        if layout.root.exists():
            left.append(f"directory {layout.root}")
        if left:
            raise NotHeld(f"left behind: {'; '.join(left)}")


async def _end_quietly(tools: Tools) -> None:
    """After a failure: stop everything, keep the logs."""
    try:
        await tools.k8slite("stop")
    except NotHeld as error:
        tools.show.lines(str(error))
