"""The state machine: keys with all their revisions, transactions, leases and watch matching.

Pure: no clock, socket, disk, thread or randomness. Start reading at `machine.py`.
"""
