"""Storage of streams: Zarr v3 groups with durable commits."""
