"""Request handlers, one module per subject. Each handler has its method, path and right beside it."""
