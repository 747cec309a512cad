"""What survives a crash: the write-ahead log and the snapshot files, over a `Disk`."""
