"""api's validation and defaults, and the subresources, as the API server's extension points."""
