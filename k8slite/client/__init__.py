"""The client side of the Kubernetes API: requests, informers, queues, leaders, events."""
