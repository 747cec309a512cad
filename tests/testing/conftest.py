"""The fixtures that users of k8slite.testing have."""

from __future__ import annotations

from k8slite.testing.fixtures import cluster, cluster_config, cluster_seed, seeded_trio

__all__ = ["cluster", "cluster_config", "cluster_seed", "seeded_trio"]
