"""The cluster's network as root: a switch, nodes and pods, each a network namespace.

    host --- switch (bridge) --+-- node 1 (bridge "pods") --+-- pod
                               |                            +-- pod
                               +-- node 2 ...

topology.py     the switch and the nodes; how all of it is found and removed again
pods.py         connects pods to their node, for the kubelet
addresses.py    names and addresses (pure)
namespaces.py   network namespaces by name, and ways into them
netlink.py      the requests to the kernel, over pyroute2

On the host itself there is one interface and nothing else.
"""
