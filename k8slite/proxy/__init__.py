"""kube-proxy: services become rules or relays on a node.

proxy.py        the loop from the API to a writer
table.py        what a node must forward (pure)
writer.py       what the loop asks of a writer:
iptables.py     kube-proxy's own chains; rules.py makes them (pure)
nftables.py     maps and chains in one table; nft_rules.py makes them (pure)
userspace.py    relays in this process, without root; relay.py is one of them
"""
