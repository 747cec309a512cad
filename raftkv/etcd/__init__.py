"""etcd's v3 API in front of a member, over gRPC: for etcdctl, Kubernetes' apiserver and the like.

schema.py       the messages, as a table
rpc.py          what gRPC is, apart from HTTP/2
connection.py   one HTTP/2 connection with its calls
outcomes.py     our errors as etcd's codes and texts
translate.py    requests and results, there and back
ranges.py       filters and orders that the store has not
member.py       the member behind, and the way to its leader
kv.py, watch.py, lease.py, cluster.py, maintenance.py, health.py    the services
front.py        the listener
"""

from raftkv.etcd.front import open_front

__all__ = ["open_front"]
