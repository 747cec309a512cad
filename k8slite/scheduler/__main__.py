"""`python -m k8slite.scheduler`: one scheduler by itself, for a cluster that is there already.

It finds the apiserver by a kubeconfig (`k8slite kubeconfig` prints one). A second scheduler of
other names runs beside the cluster's own with `--leader-elect-name`.
"""

from __future__ import annotations

import argparse
import base64
import logging
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from k8slite.api.yaml_codec import load
from k8slite.client.client import ClientConfig
from k8slite.scheduler.config import DEFAULT_CONFIGURATION
from k8slite.scheduler.loader import check_configuration, load_configuration
from k8slite.scheduler.scheduler import SchedulerConfig, open_scheduler
from raftkv.host import Address, parse_address
from raftkv.os_host import OsHost


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m k8slite.scheduler", description=__doc__)
    add = parser.add_argument
    add("--config", metavar="FILE", help="a KubeSchedulerConfiguration")
    add("--kubeconfig", metavar="FILE", required=True, help="where the apiserver is, and who asks")
    add(
        "--leader-elect-name",
        default="kube-scheduler",
        metavar="NAME",
        help="of the Lease in kube-system (default: %(default)s)",
    )
    add("--metrics", default="", metavar="HOST:PORT", help="show metrics there")
    return parser


def read_kubeconfig(path: str) -> ClientConfig:
    """The current context. Raises ValueError, OSError."""
    body: Any = load(Path(path).read_bytes())
    try:
        contexts = {each["name"]: each["context"] for each in body["contexts"]}
        context = contexts[body["current-context"]]
        clusters = {each["name"]: each["cluster"] for each in body["clusters"]}
        users = {each["name"]: each["user"] for each in body["users"]}
        cluster, user = clusters[context["cluster"]], users[context["user"]]
        server = urlsplit(cluster["server"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no kubeconfig with a current context: {error}") from None
    tls = _tls(cluster, user) if server.scheme == "https" else None
    address = Address(server.hostname or "", server.port or 443)
    return ClientConfig(
        endpoints=(address,), tls=tls, token=user.get("token"), user_agent="k8slite-scheduler"
    )


def _tls(cluster: Any, user: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority").decode())
    if user.get("client-certificate-data") or user.get("client-certificate"):
        pem = _pem(user, "client-certificate") + b"\n" + _pem(user, "client-key")
        with tempfile.NamedTemporaryFile(prefix="k8slite-") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _pem(body: Any, field: str) -> bytes:
    data = body.get(f"{field}-data")
    return base64.b64decode(data) if data else Path(body[field]).read_bytes()


async def _run(config: SchedulerConfig) -> None:
    async with open_scheduler(config, OsHost(config.identity)) as scheduler:
        if scheduler.metrics_address is not None:
            sys.stdout.write(f"http://{scheduler.metrics_address}/metrics\n")
            sys.stdout.flush()
        await trio.sleep_forever()


def main() -> int:
    """The command; its exit code."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO)
    try:
        if arguments.config:
            check_configuration(arguments.config)
        config = SchedulerConfig(
            client=read_kubeconfig(arguments.kubeconfig),
            identity=f"{socket.gethostname()}-{arguments.leader_elect_name}",
            configuration=(
                load_configuration(arguments.config) if arguments.config else DEFAULT_CONFIGURATION
            ),
            lease_name=arguments.leader_elect_name,
            metrics=parse_address(arguments.metrics) if arguments.metrics else None,
        )
        trio.run(_run, config)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"scheduler: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
