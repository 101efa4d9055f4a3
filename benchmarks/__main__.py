"""``python -m benchmarks`` runs all benchmarks and prints one table."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from benchmarks.report import Row, table
from benchmarks.runner import Plan, main

NAMES: Final = (
    "push_latency", "push_frame_jitter", "cameras", "cpu_per_gb", "throughput", "memory_ceiling", "import_time",
    "host_gaps", "loop_stall", "soak_120fps", "many_streams", "server_ingest", "slow_uplink",
    "live_latency", "page_live", "files", "exports", "analysis_cpu", "spool_cost", "truth_table", "campaign",
)  # fmt: skip


def measure(plan: Plan) -> list[Row]:
    """Return the rows of all benchmarks; a failure is reported on stderr and the others still run."""
    rows: list[Row] = []
    for name in NAMES:
        if find_spec(f"benchmarks.{name}") is None:
            continue
        one = getattr(import_module(f"benchmarks.{name}"), "measure", None)
        if one is None:  # its table has another form
            print(f"{name}: run it alone: python -m benchmarks.{name}", file=sys.stderr)
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            found = one(plan)
            print(table(found), file=sys.stderr, flush=True)  # a long run can be followed
            rows += found
        except Exception as error:
            print(f"{name} failed: {error}", file=sys.stderr)
            rows.append(Row(f"{name} FAILED", "", {}, (), str(error).strip().splitlines()[-1]))
    return rows


if __name__ == "__main__":
    main(measure)
