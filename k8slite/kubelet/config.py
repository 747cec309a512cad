"""What a kubelet is told when it starts. Values only; Kubernetes' own defaults."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import attrs

from k8slite.api.meta import Obj
from k8slite.client.client import ClientConfig
from k8slite.kubelet.eviction.thresholds import HARD, Threshold
from k8slite.kubelet.images.garbage import Policy
from raftkv.host import Address

VERSION = "v1.36.0"
DEFAULT_LISTEN = Address("127.0.0.1", 10250)


@attrs.frozen
class KubeletTimings:
    """All in seconds."""

    node_status: float = 10.0
    """How often the node's state is looked at; it is written when it has changed."""
    node_status_report: float = 300.0
    """How often it is written even so."""
    lease: float = 10.0
    lease_duration: int = 40
    relist: float = 10.0
    """How often the runtime is asked for everything, should its word have been lost."""
    resync: float = 60.0
    """How often each pod is looked at though nothing has happened; volumes are renewed then."""
    image_garbage: float = 300.0
    """How often it is looked at how full the images' disk is."""
    static_pods: float = 2.0
    """How often the directory of static pods is looked at."""
    eviction: float = 10.0
    """How often it is looked whether the node runs short of something."""
    pressure_transition: float = 300.0
    """How long a pressure is told of after it was seen last."""
    stats: float = 10.0
    """How often it is looked what containers use."""
    backoff_initial: float = 10.0
    backoff_max: float = 300.0
    retry: float = 1.0
    """How soon a failed step of ours is tried again, doubling to `retry_max`."""
    retry_max: float = 30.0


@attrs.frozen(kw_only=True)
class KubeletConfig:
    """`root_dir` holds everything the kubelet makes; `tls` is the server's side of its own
    identity, and asks clients for a certificate. `capacity` None: this machine's. `pod_cidr` is
    written to the Node when it is registered; empty leaves that to the controller manager.
    """

    client: ClientConfig
    node_name: str
    node_ip: str
    root_dir: str
    listen: Address = DEFAULT_LISTEN
    tls: ssl.SSLContext | None = None
    authorized_users: tuple[str, ...] = ()
    """Users and groups (of certificates or tokens) that may use the server without the apiserver
    being asked, so that it can reach us even while it has trouble."""
    streaming_idle_seconds: float = 4 * 3600.0
    """After how long without any bytes exec, attach and port-forward are cut off."""
    pod_cidr: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    taints: tuple[Obj, ...] = ()
    capacity: Mapping[str, str] | None = None
    max_pods: int = 110
    pod_pids_max: int = 0
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    version: str = VERSION
    provider_id: str = ""
    device_plugins: bool = False
    """Let device plugins register, in `root_dir`/device-plugins; needs the library h2."""
    static_pod_path: str = ""
    """A directory of manifests, which need not exist; "": no static pods."""
    docker_config: str = ""
    """A docker `config.json` with credentials of the node's own; it need not exist."""
    service_links: bool = True
    """Watch Services for the variables of containers; hollow nodes go without."""
    serve: bool = True
    """Whether to open the HTTPS server; hollow nodes go without."""
    eviction: tuple[Threshold, ...] = HARD
    """When pods are evicted; what hard thresholds keep is not allocatable."""
    image_policy: Policy = attrs.field(factory=Policy)
    """When images that nobody uses are removed."""
    timings: KubeletTimings = KubeletTimings()
