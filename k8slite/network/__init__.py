"""The cluster's network as root: a switch, nodes and pods, each a network namespace.

    host --- switch (bridge) --+-- node 1 (bridge "pods") --+-- pod
                               |                            +-- pod
                               +-- node 2 ...

`topology.py` builds the switch and the nodes, `pods.py` connects pods to their node. On the host
itself there is one interface and nothing else.
"""
