"""Puts the parts together: the embedded home (`hotvirt up`)."""
