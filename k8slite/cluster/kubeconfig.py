"""A kubeconfig that needs no other file: certificates are inside."""

from __future__ import annotations

import base64
from pathlib import Path

from k8slite.cluster.pki import CLUSTER_CA, admin, pem_of
from raftkv.host import Address

__all__ = ["context_of", "kubeconfig"]

TEMPLATE = """\
apiVersion: v1
kind: Config
clusters:
- name: {context}
  cluster:
    server: https://{address}
    certificate-authority-data: {ca}
contexts:
- name: {context}
  context:
    cluster: {context}
    user: {context}
current-context: {context}
users:
- name: {context}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
preferences: {{}}
"""


def context_of(cluster: str) -> str:
    """The context's name, which `kubectl config` shows."""
    return f"k8slite-{cluster}"


def kubeconfig(cluster: str, address: Address, pki: Path) -> str:
    """For the administrator. Raises OSError where the certificates are missing."""

    def encoded(path: str | Path) -> str:
        return base64.b64encode(Path(path).read_bytes()).decode()

    certificate, key = pem_of(pki, admin.file)
    return TEMPLATE.format(
        context=context_of(cluster),
        address=address,
        ca=encoded(pki / f"{CLUSTER_CA}.crt"),
        certificate=encoded(certificate),
        key=encoded(key),
    )
