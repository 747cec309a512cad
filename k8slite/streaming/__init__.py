"""The protocols by which clients use containers' streams and ports, for apiserver and kubelet."""
