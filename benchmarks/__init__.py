"""Benchmarks. ``python -m benchmarks`` prints one table; ``python -m benchmarks.throughput`` runs one of them.

Each program under test (this project, the public client of the hosted service, acquire-zarr) runs in its own process
with the same frames and uploads to the same sink in another process. The programs run alternately, and ratios are
taken within one run, because the speed of a machine drifts.
"""
