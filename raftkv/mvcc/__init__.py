"""The state machine: keys with all their revisions, transactions, leases and watch matching.

Pure: no clock, socket, disk, thread or randomness.

machine.py      Machine: apply(command) -> result, events; reads; snapshots
commands.py     the shapes of commands and results, and the checks that need no state
txn.py          comparisons, and refusals before the first write
store.py        revisions, the event log, compaction in two halves
keyindex.py     which versions of which key exist
leases.py       the replicated table of leases, and the leader's clockwork beside it
watchers.py     which watcher sees which event, and from where on
snapshot.py     the state as bytes
"""
