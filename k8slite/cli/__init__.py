"""The command `k8slite`: one file a group of commands, `main.py` puts them together.

Commands import what they need when they run, so that each starts quickly.
"""
