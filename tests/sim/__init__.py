"""Whole servers and clients in a simulated world, under faults drawn from a seed."""
