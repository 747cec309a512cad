"""A whole cluster in one process, under virtual time and one seed: for tests of what runs on it."""

from k8slite.testing.cluster import ClusterConfig, SimCluster, open_cluster, run_cluster

__all__ = ["ClusterConfig", "SimCluster", "open_cluster", "run_cluster"]
