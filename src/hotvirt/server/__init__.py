"""The embedded Kubernetes API server. General: it serves whatever CRDs it is given and knows nothing of VMs."""
