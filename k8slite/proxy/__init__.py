"""kube-proxy: services become rules or relays on a node.

`table.py` says what is to be (pure); behind `writer.py`'s interface `iptables.py`, `nftables.py`
and `userspace.py` make it so; `proxy.py` is the loop from the API to the writer.
"""
