"""Nodes that fall silent, their taints, and their pods."""
