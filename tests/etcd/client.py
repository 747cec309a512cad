"""A gRPC client of etcd's API: the library's own, as far from our server as can be."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from raftkv.etcd.schema import MESSAGES

__all__ = ["EtcdClient", "Refused", "Stream"]

PATIENCE_SECONDS = 20.0
REQUESTS = {"Compact": "CompactionRequest"}
RESPONSES = {"Compact": "CompactionResponse"}


class Refused(Exception):
    """(status code, text)"""


class EtcdClient:
    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options=options)
        else:
            self.channel = grpc.secure_channel(target, credentials, options=options)

    def __enter__(self) -> EtcdClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(self, method: str, metadata: Any = None, **fields: Any) -> Any:
        """`call("KV/Put", key=b"a")`. Raises Refused."""
        service, name = method.split("/")
        request = MESSAGES[REQUESTS.get(name, f"{name}Request")](**fields)
        return self.send(service, name, request, metadata)

    def send(self, service: str, name: str, request: Any, metadata: Any = None) -> Any:
        ask = self.channel.unary_unary(
            f"/etcdserverpb.{service}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[RESPONSES.get(name, f"{name}Response")].FromString,
        )
        try:
            return ask(request, timeout=PATIENCE_SECONDS, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            raise Refused(error.code().name, error.details()) from None

    def stream(self, service: str, name: str, response: str, metadata: Any = None) -> Stream:
        return Stream(self.channel, f"/etcdserverpb.{service}/{name}", response, metadata)


class Stream:
    """A call with messages both ways; what comes is read by a thread of its own."""

    def __init__(self, channel: grpc.Channel, path: str, response: str, metadata: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.responses: queue.Queue[Any] = queue.Queue()
        ask = channel.stream_stream(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[response].FromString,
        )
        self._call = ask(iter(self._requests.get, None), metadata=metadata, wait_for_ready=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for response in self._call:
                self.responses.put(response)
        except grpc.RpcError as error:
            self.responses.put(Refused(error.code().name, error.details()))

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.receive()

    def send(self, request: Any) -> None:
        self._requests.put(request)

    def receive(self, seconds: float = PATIENCE_SECONDS) -> Any:
        """Raises queue.Empty, Refused."""
        found = self.responses.get(timeout=seconds) if seconds else self.responses.get_nowait()
        if isinstance(found, Refused):
            raise found
        return found

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._thread.join()
