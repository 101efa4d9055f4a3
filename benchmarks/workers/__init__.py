"""Programs that the benchmarks run in processes of their own, each with one JSON job and one JSON answer."""
