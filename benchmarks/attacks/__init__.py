"""Attacks on a running server, as a table: ``python -m benchmarks.attacks``."""
