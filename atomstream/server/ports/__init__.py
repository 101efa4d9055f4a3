"""What a server needs of engines around it: small interfaces, each with a local and a shared implementation."""
