"""hotvirt: virtual machines as Kubernetes objects, resized while they run."""

__version__ = "0.1.0"
