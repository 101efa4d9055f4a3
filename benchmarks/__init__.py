"""``python -m benchmarks`` prints one table; each benchmark also runs by itself (``python -m benchmarks.throughput``).

Every program under test (this project, the hosted service's public client, acquire-zarr) runs in a process of
its own on the same frames and, where it uploads, towards the same sink in another process. Ratios are taken
within one run, whose parts alternate, for a machine's speed drifts.
"""
