"""What an apiserver is told at its start. Plain values: picklable but for the TLS contexts."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from attrs import frozen

from k8slite.apiserver.audit.files import NO_LIMITS, Rotation
from raftkv.host import Address, Tls

__all__ = ["ApiserverConfig", "StaticToken", "StoreConfig"]


class StaticToken(NamedTuple):
    """A bearer token that names a user, as a line of kube-apiserver's token file does."""

    token: str
    user: str
    uid: str = ""
    groups: tuple[str, ...] = ()


@frozen
class StoreConfig:
    """Which store keeps the objects: raftkv members, or memory when no endpoint is given."""

    endpoints: tuple[Address, ...] = ()
    tls: Tls | None = None


@frozen
class ApiserverConfig:
    """One of any number of apiservers over one store.

    `identity` names this server among its peers; it must differ between servers that live at
    the same time, and be the same again after a restart. Seconds are floats, ports inclusive.
    """

    listen: tuple[Address, ...] = (Address("127.0.0.1", 0),)
    store: StoreConfig = StoreConfig()
    identity: str = "apiserver-1"
    encryption_config: str = ""
    """An EncryptionConfiguration (its path): what is stored encrypted; none: nothing."""

    # who may come in
    tls: ssl.SSLContext | None = None
    tokens: tuple[StaticToken, ...] = ()
    anonymous: bool = True
    authorization: bool = True
    authentication_config: str = ""
    """An AuthenticationConfiguration (its path): OpenID Connect, and who may be nobody."""
    authorization_config: str = ""
    """An AuthorizationConfiguration (its path): who is asked what users may do, in order."""
    token_webhook: str = ""
    """A kubeconfig (its path) of a server that knows tokens."""
    request_header_names: tuple[str, ...] = ("front-proxy-client",)
    """Whom of those with certificates of `proxy_client_ca` to believe who asks; none: all."""
    service_account_private_key: bytes = b""
    service_account_public_keys: tuple[bytes, ...] = ()
    service_account_issuer: str = "https://kubernetes.default.svc"

    # what is told of requests
    audit_policy: str = ""
    """A Policy (its path): what is told of which requests; none: nothing."""
    audit_log: str = "-"
    """Where to, in lines of JSON; "-": the standard output."""
    audit_rotation: Rotation = NO_LIMITS

    # the network it tells others about
    advertise_address: str = ""
    advertise_port: int = 0
    service_cidr: str = "10.96.0.0/16"
    node_port_first: int = 30000
    node_port_last: int = 32767
    allow_loopback_endpoints: bool = False
    kubelet_tls: ssl.SSLContext | None = None
    proxy_client: tuple[str, str] | None = None
    """Certificate and key (paths) that aggregated servers know us by."""
    proxy_client_ca: bytes = b""
    """Who has signed it (PEM), for them to read."""
    client_ca: bytes = b""
    """Who signs users' certificates (PEM), for them to read."""

    # timings
    store_seconds: float = 10.0
    request_seconds: float = 60.0
    watch_seconds_min: float = 1800.0
    bookmark_seconds: float = 60.0
    drain_seconds: float = 2.0
    """How long requests at work may take when the server stops."""
    lease_renew_seconds: float = 10.0
    lease_seconds: int = 3600
    endpoint_seconds: float = 15.0
    compact_seconds: float = 300.0
    event_seconds: float = 3600.0
    toleration_seconds: int = 300
    """How long pods stay on a node that is lost, unless they say so themselves."""

    # bounds
    connections_max: int = 4_096
    requests_max: int = 200
    """At work at the same time, without those of system:masters; priority levels share them."""
    body_bytes_max: int = 3 * 1024 * 1024
    watch_queue_events_max: int = 20_000
    watch_history_events: int = 4_096

    bootstrap: bool = True
    track_field_owners: bool = True
    """Keep metadata.managedFields; without them server-side apply sees no conflicts."""
