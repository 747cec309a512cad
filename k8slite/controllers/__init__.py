"""The controllers of Kubernetes: each a pure plan and a thin loop around it."""
