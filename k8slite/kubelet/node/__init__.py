"""The node as the API knows it: its object, its heartbeats, what it admits."""
