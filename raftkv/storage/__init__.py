"""What survives a crash: the write-ahead log and the snapshot files, over a `Disk`.

wal.py          Wal: append, sync, save_snapshot, release
replay.py       from the files to what a member knew
records.py      records as bytes; a torn tail or damage?
snapshots.py    snapshot files
verify.py       the check of a log without starting on it
"""
