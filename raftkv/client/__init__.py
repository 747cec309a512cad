"""The client: requests, watches, leases. Imports nothing of the server."""

from raftkv.client.client import KvClient, open_client
from raftkv.client.types import (
    Event,
    KeyValue,
    RangeResult,
    TxnResult,
    WatchBatch,
    compare,
    delete_op,
    get_op,
    prefix_end,
    put_op,
)
from raftkv.client.watch import Watch

__all__ = [
    "Event",
    "KeyValue",
    "KvClient",
    "RangeResult",
    "TxnResult",
    "Watch",
    "WatchBatch",
    "compare",
    "delete_op",
    "get_op",
    "open_client",
    "prefix_end",
    "put_op",
]
