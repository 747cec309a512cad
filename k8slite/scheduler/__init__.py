"""The scheduler: a pure view of the cluster, plugins that judge nodes, and a loop that binds."""
