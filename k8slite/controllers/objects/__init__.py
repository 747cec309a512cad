"""What holds for objects of all kinds: owners, namespaces, quotas."""
