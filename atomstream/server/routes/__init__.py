"""Request handlers, one module per subject. A decorator at each handler declares its method, path and right."""
