"""The server's requests, one file for each thing that they are about."""
