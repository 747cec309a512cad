"""kube-proxy: services become rules or relays on a node.

`table.py` says what is to be (pure), `writers` make it so: `iptables.py` and `userspace.py`.
"""
