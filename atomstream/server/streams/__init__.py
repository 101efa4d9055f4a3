"""Streams that are being received: registry, ingest, lifecycle, signals."""
