"""Programs that the benchmarks run in separate processes, each with one JSON job and one JSON answer."""
