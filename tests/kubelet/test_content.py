"""Variables and volumes: what a container is given."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from k8slite.api.meta import Obj
from k8slite.kubelet.containers.environment import (
    Sources,
    make_environment,
    references,
    service_variables,
)
from k8slite.kubelet.containers.fields import NodeFacts, field_value, resource_value
from k8slite.kubelet.runtime.interface import (
    ConfigFailure,
)
from k8slite.kubelet.volumes.volume_files import mount_points, write_files
from k8slite.kubelet.volumes.volumes import (
    EmptyDirectory,
    Files,
    HostPath,
    TokenRequest,
    content_of,
    token_requests,
)
from tests.kubelet.world import container, pod

NODE = NodeFacts("node-1", "10.0.0.9", {"cpu": "4", "memory": "8Gi"})


def config_map(**data: str) -> Obj:
    return {"metadata": {"name": "cm", "namespace": "default"}, "data": data}


def secret(**data: bytes) -> Obj:
    coded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"metadata": {"name": "sec", "namespace": "default"}, "data": coded}


SOURCES = Sources(
    {("configMap", "cm"): config_map(a="1", b="2"), ("secret", "sec"): secret(s=b"x")}
)


def environment(*env: Obj, **fields: Any) -> dict[str, str]:
    made = container("c", env=list(env), **fields)
    given: dict[str, Any] = {"sources": SOURCES, "services": {"SVC": "9"}, "node": NODE}
    return make_environment(pod(), made, pod_ip="10.1.1.1", **given)


def ref(name: str, kind: str, /, **fields: Any) -> Obj:
    return {"name": name, "valueFrom": {kind: fields}}


def test_environment_in_order() -> None:
    assert environment(
        {"name": "A", "value": "$(SVC)$(a)$(LATER)"},
        {"name": "LATER", "value": "$(A)"},
        ref("S", "secretKeyRef", name="sec", key="s"),
        ref("N", "fieldRef", fieldPath="spec.nodeName"),
        ref("IP", "fieldRef", fieldPath="status.podIP"),
        ref("C", "resourceFieldRef", resource="limits.cpu"),
        {"name": "EMPTY"},
        envFrom=[{"configMapRef": {"name": "cm"}}, {"prefix": "P_", "secretRef": {"name": "sec"}}],
    ) == {
        "SVC": "9",
        "a": "1",
        "b": "2",
        "P_s": "x",
        "A": "91$(LATER)",
        "LATER": "91$(LATER)",
        "S": "x",
        "N": "node-1",
        "IP": "10.1.1.1",
        "C": "4",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ref("A", "configMapKeyRef", name="no", key="k"), 'configmap "no" not found'),
        (ref("A", "secretKeyRef", name="no", key="k"), 'secret "no" not found'),
        (
            ref("A", "configMapKeyRef", name="cm", key="k"),
            "couldn't find key k in ConfigMap default/cm",
        ),
        (
            ref("A", "secretKeyRef", name="sec", key="k"),
            "couldn't find key k in Secret default/sec",
        ),
        (ref("A", "fieldRef", fieldPath="spec.nope"), "unsupported fieldPath: spec.nope"),
    ],
)
def test_what_is_missing_is_said(entry: Obj, message: str) -> None:
    with pytest.raises(ConfigFailure) as raised:
        environment(entry)
    assert str(raised.value) == message
    source = next(iter(entry["valueFrom"].values()))
    if "key" in source:
        source["optional"] = True
        assert environment(entry) == {"SVC": "9"}


def test_references_are_found() -> None:
    made = container(
        "c",
        env=[ref("A", "configMapKeyRef", name="x", key="k")],
        envFrom=[{"secretRef": {"name": "y"}}, {"configMapRef": {"name": "x"}}],
    )
    assert references(made) == [("secret", "y"), ("configMap", "x")]


def service(name: str, namespace: str, address: str) -> Obj:
    ports = [{"name": "http", "port": 80}, {"name": "alt-1", "port": 81, "protocol": "UDP"}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": ports},
    }


def test_service_variables_are_dockers_links() -> None:
    services = [
        service("my-web", "default", "10.96.0.7"),
        service("headless", "default", "None"),
        service("other", "else", "10.96.0.8"),
    ]
    found = service_variables(services, "default", links=True)
    assert found == {
        "MY_WEB_SERVICE_HOST": "10.96.0.7",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_SERVICE_PORT_ALT_1": "81",
        "MY_WEB_PORT": "tcp://10.96.0.7:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.7:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.7",
        "MY_WEB_PORT_81_UDP": "udp://10.96.0.7:81",
        "MY_WEB_PORT_81_UDP_PROTO": "udp",
        "MY_WEB_PORT_81_UDP_PORT": "81",
        "MY_WEB_PORT_81_UDP_ADDR": "10.96.0.7",
    }
    assert service_variables(services, "default", links=False) == {}
    master = service("kubernetes", "default", "10.96.0.1")
    only = service_variables([master], "elsewhere", links=False)
    assert only["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


def test_fields_and_resources() -> None:
    made = pod(
        containers=[container("c", resources={"limits": {"memory": "100Mi", "cpu": "250m"}})]
    )
    made["metadata"].update(labels={"b": "2", "a": '1"'}, annotations={"x/y": "z"})

    def read(path: str) -> str:
        return field_value(made, path, NODE, "10.1.1.1")

    def limit(**fields: str) -> str:
        return resource_value(made, "c", fields, NODE)

    assert read("metadata.labels['b']") == "2"
    assert read("metadata.annotations['x/y']") == "z"
    assert read("metadata.labels") == 'a="1\\""\nb="2"'
    assert read("status.hostIP") == "10.0.0.9"
    assert limit(resource="limits.memory") == str(100 << 20)
    assert limit(resource="limits.memory", divisor="1Mi") == "100"
    assert limit(resource="limits.cpu") == "1"
    assert limit(resource="limits.cpu", divisor="1m") == "250"
    assert limit(resource="requests.cpu") == "0"


def content(volume: Obj, **given: Any) -> Any:
    fields: dict[str, Any] = {"sources": SOURCES, "tokens": {}, "claims": {}, "node": NODE, **given}
    return content_of(pod(), {"name": "v", **volume}, pod_ip="10.1.1.1", **fields)


def test_volumes() -> None:
    assert content({"emptyDir": {}}) == EmptyDirectory()
    memory = {"medium": "Memory", "sizeLimit": "1Mi"}
    assert content({"emptyDir": memory}) == EmptyDirectory(True, 1 << 20)
    assert content({"hostPath": {"path": "/x", "type": ""}}) == HostPath("/x")
    assert content({"configMap": {"name": "cm", "items": [{"key": "a", "path": "d/f"}]}}) == Files(
        {"d/f": (b"1", 0o644)}
    )
    assert content({"secret": {"secretName": "sec", "defaultMode": 0o400}}) == Files(
        {"s": (b"x", 0o400)}
    )
    assert content({"configMap": {"name": "no", "optional": True}}) == Files({})
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    assert content(claim, claims={"data": "/mnt/1"}) == HostPath("/mnt/1")
    wanted = TokenRequest("api", 600)
    projected = {
        "projected": {
            "sources": [
                {
                    "serviceAccountToken": {
                        "path": "token",
                        "audience": "api",
                        "expirationSeconds": 600,
                    }
                },
                {"configMap": {"name": "cm", "items": [{"key": "b", "path": "b"}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                    }
                },
            ]
        }
    }
    assert token_requests(projected) == [wanted]
    assert content(projected, tokens={wanted: "T"}) == Files(
        {"token": (b"T", 0o644), "b": (b"2", 0o644), "ns": (b"default", 0o644)}
    )


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}},
            "references non-existent configmap key: z",
        ),
        (
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "../z"}]}},
            "invalid path '../z' in a volume",
        ),
        ({"nfs": {"server": "x"}}, "volume v: nfs is not supported here"),
        (
            {"persistentVolumeClaim": {"claimName": "c"}},
            'persistentvolumeclaim "c" is not bound to a local volume',
        ),
    ],
)
def test_volumes_that_cannot_be(volume: Obj, message: str) -> None:
    with pytest.raises(ConfigFailure) as raised:
        content(volume)
    assert str(raised.value) == message


def test_files_change_as_one(tmp_path: Path) -> None:
    assert write_files(tmp_path, {"a": (b"1", 0o644), "d/b": (b"2", 0o600)})
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "d/b").stat().st_mode & 0o777 == 0o600
    assert not write_files(tmp_path, {"a": (b"1", 0o644), "d/b": (b"2", 0o600)})
    first = (tmp_path / "..data").resolve()
    assert write_files(tmp_path, {"a": (b"3", 0o644), "c": (b"4", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not (tmp_path / "d").is_symlink()
    assert not first.exists()


def test_mount_points_of_any_name() -> None:
    names = [
        "/plain",
        "/sp\\040ace/t\\011ab",
        "/hash\\043",
        "/back\\134040",
        "/grün/日本",
        "/\u2028x",
    ]
    lines = [f"36 35 98:0 / {name} rw,noatime master:1 - ext4 /dev/root rw\n" for name in names]
    read = mount_points("".join(lines).encode() + b"1 2 0:1 / /\xff rw - tmpfs tmpfs rw\n")
    assert [str(path) for path in read] == [
        "/plain",
        "/sp ace/t\tab",
        "/hash#",
        "/back\\040",
        "/grün/日本",
        "/\u2028x",
        "/\udcff",
    ]
