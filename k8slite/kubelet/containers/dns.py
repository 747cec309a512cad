"""What a pod finds in /etc/resolv.conf and /etc/hosts. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.meta import Obj


def hostname_of(pod: Obj, node_name: str) -> str:
    if pod["spec"].get("hostNetwork"):
        return node_name
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name[:63].rstrip("-.")


def domain_of(pod: Obj, cluster_domain: str) -> str:
    """The pod's own domain, if it has a subdomain: `SUB.NAMESPACE.svc.DOMAIN`."""
    subdomain = pod["spec"].get("subdomain")
    if not subdomain:
        return ""
    return f"{subdomain}.{pod['metadata']['namespace']}.svc.{cluster_domain}"


def resolv_conf(pod: Obj, *, cluster_dns: Sequence[str], cluster_domain: str, machine: str) -> str:
    """By `dnsPolicy` and `dnsConfig`; `machine` is the node's own file."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers, search, options = _parse(machine)
    if policy == "None":
        servers, search, options = [], [], []
    elif policy in ("ClusterFirst", "ClusterFirstWithHostNet") and cluster_dns:
        namespace = pod["metadata"]["namespace"]
        own = [f"{namespace}.svc.{cluster_domain}", f"svc.{cluster_domain}", cluster_domain]
        servers, search, options = list(cluster_dns), own + search, ["ndots:5"]
    extra = spec.get("dnsConfig") or {}
    servers += extra.get("nameservers") or []
    search += extra.get("searches") or []
    given = {
        o["name"]: o["name"] + (f":{o['value']}" if o.get("value") is not None else "")
        for o in extra.get("options") or ()
    }
    options = [o for o in options if o.partition(":")[0] not in given] + list(given.values())
    lines = [f"search {' '.join(dict.fromkeys(search))}"] if search else []
    lines += [f"nameserver {server}" for server in dict.fromkeys(servers)]
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["nameserver"]:
            servers += words[1:2]
        elif words[:1] in (["search"], ["domain"]):
            search = words[1:]
        elif words[:1] == ["options"]:
            options = words[1:]
    return servers, search, options


def hosts_file(pod: Obj, *, ip: str, hostname: str, domain: str) -> str:
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        f"{ip}\t" + (f"{hostname}.{domain}\t" if domain else "") + hostname,
    ]
    aliases = pod["spec"].get("hostAliases") or ()
    if aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias["ip"], *alias.get("hostnames", ())]) for alias in aliases]
    return "\n".join(lines) + "\n"
