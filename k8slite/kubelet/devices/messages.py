"""The messages of the kubelet's device plugin API, v1beta1, as a table. Pure.

One line a message: `name=number type`, with `*` behind a type for a repeated field. A map of
strings is, on the wire, a repeated message of key and value: `Entry`.
https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = ["ALLOCATE", "LIST_AND_WATCH", "MESSAGES", "OPTIONS", "PRE_START", "REGISTER", "VERSION"]

VERSION: Final = "v1beta1"
REGISTER: Final = "/v1beta1.Registration/Register"
OPTIONS: Final = "/v1beta1.DevicePlugin/GetDevicePluginOptions"
LIST_AND_WATCH: Final = "/v1beta1.DevicePlugin/ListAndWatch"
ALLOCATE: Final = "/v1beta1.DevicePlugin/Allocate"
PRE_START: Final = "/v1beta1.DevicePlugin/PreStartContainer"

TABLE: Final = """
Empty:
Entry: key=1 string, value=2 string
DevicePluginOptions: pre_start_required=1 bool, get_preferred_allocation_available=2 bool
RegisterRequest: version=1 string, endpoint=2 string, resource_name=3 string, \
options=4 DevicePluginOptions
Device: ID=1 string, health=2 string
ListAndWatchResponse: devices=1 Device*
ContainerAllocateRequest: devicesIDs=1 string*
AllocateRequest: container_requests=1 ContainerAllocateRequest*
Mount: container_path=1 string, host_path=2 string, read_only=3 bool
DeviceSpec: container_path=1 string, host_path=2 string, permissions=3 string
ContainerAllocateResponse: envs=1 Entry*, mounts=2 Mount*, devices=3 DeviceSpec*, \
annotations=4 Entry*
AllocateResponse: container_responses=1 ContainerAllocateResponse*
PreStartContainerRequest: devicesIDs=1 string*
"""
_TYPES: Final = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
}


def _load() -> dict[str, Any]:
    file = FileDescriptorProto(name="deviceplugin.proto", package=VERSION, syntax="proto3")
    for line in TABLE.strip().splitlines():
        name, _, rest = line.partition(":")
        message = file.message_type.add(name=name)
        for part in filter(None, map(str.strip, rest.split(","))):
            declared, type_ = part.split()
            field, _, number = declared.partition("=")
            bare = type_.removesuffix("*")
            added = message.field.add(name=field, number=int(number))
            added.label = (
                FieldDescriptorProto.LABEL_REPEATED
                if type_.endswith("*")
                else FieldDescriptorProto.LABEL_OPTIONAL
            )
            if bare in _TYPES:
                added.type = _TYPES[bare]
            else:
                added.type = FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = f".{VERSION}.{bare}"
    pool = DescriptorPool()
    pool.Add(file)
    return {
        message.name: GetMessageClass(pool.FindMessageTypeByName(f"{VERSION}.{message.name}"))
        for message in file.message_type
    }


MESSAGES: Final[dict[str, Any]] = _load()
"""Classes by name."""
