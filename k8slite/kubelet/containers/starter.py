"""Start one container of a pod: image, configuration, creation, start, `postStart`.

Each step that fails raises StartProblem with the reason its status shows; events are sent here.
"""

from __future__ import annotations

import attrs
import trio

from k8slite.api.meta import Obj
from k8slite.client.errors import REQUEST_ERRORS
from k8slite.kubelet.containers.environment import make_environment, references, service_variables
from k8slite.kubelet.containers.expansion import expand
from k8slite.kubelet.containers.hooks import run_hook
from k8slite.kubelet.containers.objects import fetch
from k8slite.kubelet.containers.problem import StartProblem
from k8slite.kubelet.containers.pulling import ensure_image
from k8slite.kubelet.containers.resources import memory_of, resources_of, security_of
from k8slite.kubelet.context import Context
from k8slite.kubelet.pods import Observed, init_containers, spec_hash
from k8slite.kubelet.runtime.interface import (
    ConfigFailure,
    ContainerConfig,
    ContainerState,
    Mount,
    RuntimeFailure,
    SandboxStatus,
    StartFailure,
)
from k8slite.kubelet.volumes.pod_volumes import PodVolumes


@attrs.frozen
class Starter:
    context: Context
    volumes: PodVolumes

    async def start(self, pod: Obj, container: Obj, attempt: int, sandbox: SandboxStatus) -> None:
        """Raises StartProblem."""
        runtime, name = self.context.runtime, container["name"]
        policy = container.get("imagePullPolicy", "IfNotPresent")
        await ensure_image(self.context, pod, container["image"], policy, name)
        try:
            config = await self._configure(pod, container, attempt, sandbox)
        except (ConfigFailure, OSError, *REQUEST_ERRORS) as error:
            raise self._problem(pod, name, "CreateContainerConfigError", str(error)) from None
        for note in runtime.unsupported(config):
            self.context.event(
                pod, "Warning", "Unsupported", f"{runtime.name} runtime: {note}", name
            )
        try:
            container_id = await runtime.create_container(sandbox.id, config)
        except ConfigFailure as error:
            raise self._problem(pod, name, "CreateContainerConfigError", str(error)) from None
        except RuntimeFailure as error:
            raise self._problem(pod, name, "CreateContainerError", str(error)) from None
        self.context.event(pod, "Normal", "Created", f"Created container: {name}", name)
        try:
            await runtime.start_container(container_id)
        except StartFailure as error:
            raise self._problem(pod, name, "RunContainerError", str(error)) from None
        self.context.event(pod, "Normal", "Started", f"Started container {name}", name)
        await self._post_start(pod, container, container_id, sandbox.ip)

    def _problem(self, pod: Obj, name: str, reason: str, message: str) -> StartProblem:
        self.context.event(pod, "Warning", "Failed", f"Error: {message}", name)
        return StartProblem(reason, message)

    async def _configure(
        self, pod: Obj, container: Obj, attempt: int, sandbox: SandboxStatus
    ) -> ContainerConfig:
        context = self.context
        namespace = pod["metadata"]["namespace"]
        pod_ip = sandbox.ip or context.config.node_ip
        env = make_environment(
            pod,
            container,
            sources=await fetch(context.api, namespace, references(container)),
            services=service_variables(
                context.services(), namespace, links=pod["spec"].get("enableServiceLinks", True)
            ),
            node=context.node,
            pod_ip=pod_ip,
        )
        granted = await context.devices.allocate(pod, container)
        env.update(granted.env)
        mounts: tuple[Mount, ...] = ()
        message = log_path = ""
        if context.on_disk:
            mounts, message = await trio.to_thread.run_sync(
                self.volumes.mounts, pod, container, env, pod_ip, attempt
            )
            log_path = str(context.paths.log(pod, container["name"], attempt))
        names = [c["name"] for c in init_containers(pod)]
        return ContainerConfig(
            name=container["name"],
            image=container["image"],
            attempt=attempt,
            command=tuple(expand(word, env) for word in container.get("command") or ()),
            args=tuple(expand(word, env) for word in container.get("args") or ()),
            working_dir=container.get("workingDir") or "",
            env=tuple(env.items()),
            mounts=(*mounts, *granted.mounts),
            devices=granted.devices,
            log_path=log_path,
            resources=resources_of(
                pod,
                container,
                pids_max=context.config.pod_pids_max,
                memory_total=memory_of(context.machine.capacity),
            ),
            security=security_of(pod, container),
            spec_hash=spec_hash(container),
            init=container["name"] in names,
            termination_message_file=message,
            stdin=bool(container.get("stdin")),
            stdin_once=bool(container.get("stdinOnce")),
            tty=bool(container.get("tty")),
            target_id=await self._target(pod, container),
        )

    async def _target(self, pod: Obj, container: Obj) -> str:
        """The container that an ephemeral one looks into. Raises ConfigFailure."""
        name = container.get("targetContainerName")
        if not name:
            return ""
        found = await self.context.runtime.list_containers(pod["metadata"]["uid"])
        status = Observed(containers=tuple(found)).latest(name)
        if status is None or status.state is not ContainerState.RUNNING:
            raise ConfigFailure(f"unable to find target container {name}: it does not run")
        return status.id

    async def _post_start(self, pod: Obj, container: Obj, container_id: str, ip: str) -> None:
        hook = (container.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        context = self.context
        problem = await run_hook(context.host, context.runtime, container, container_id, hook, ip)
        if problem:
            name = container["name"]
            context.event(pod, "Warning", "FailedPostStartHook", "PostStartHook failed", name)
            context.event(
                pod, "Normal", "Killing", "FailedPostStartHook: container will be restarted", name
            )
            await context.runtime.stop_container(container_id, 30)
            raise StartProblem("PostStartHookError", problem)
