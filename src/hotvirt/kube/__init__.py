"""Speaking Kubernetes: client, informer, work queue, reconciler base, conditions, events."""
