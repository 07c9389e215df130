"""The object model: kinds, defaults, validation, CRD schemas. Pure functions, no I/O."""
