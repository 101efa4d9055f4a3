"""``python -m benchmarks.truth``: measure the analysis on films of another simulator.

Examples::

    python -m benchmarks.truth --half look --out look.jsonl     # all kinds, the half to look at
    python -m benchmarks.truth --kinds stops moves --films 4    # some kinds
    python -m benchmarks.truth --film stops:4                   # each look of one film
    python -m benchmarks.truth --again look.jsonl               # print the table of stored results
    python -m benchmarks.truth --traces 10000                   # random traces, only to find exceptions
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

SINGLE_THREADED = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Small matrices are slower on several threads. It must be set before a process imports numpy."""


def main() -> None:
    """Parse the arguments, run and print."""
    os.environ.update(SINGLE_THREADED)
    options = _options()
    if options.film:
        from benchmarks.truth.one import print_film

        kind, seed = options.film.rsplit(":", 1)
        print_film(kind, int(seed), options.server, options.plot)
        return
    if options.traces:
        from benchmarks.truth.traces import run_traces

        sys.exit(run_traces(options.traces, options.seed))
    records = _stored(options.again) if options.again else list(_measured(options))
    from benchmarks.truth.score import score
    from benchmarks.truth.table import LEGEND, table, totals

    scores = [score(record) for record in sorted(records, key=lambda r: (r["kind"], r["seed"]))]
    print(table(scores), LEGEND, totals(scores), sep="\n\n" if not options.quick else "\n")
    for record in records:
        if record["crash"]:
            print(f"\n{record['kind']}:{record['seed']} {record['crash'].strip().splitlines()[-1]}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.truth", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--half", choices=("look", "score"), default="look", help="even or odd seeds")
    parser.add_argument(
        "--kinds", nargs="+", default=[], metavar="KIND", help="only kinds whose names begin with this text"
    )
    parser.add_argument("--films", type=int, default=4, help="films of each kind (default 4)")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes")
    parser.add_argument("--server", action="store_true", help="send the films through a real local server")
    parser.add_argument("--quick", action="store_true", help="one film of each kind")
    parser.add_argument("--out", type=Path, help="store each film's looks as a line of JSON")
    parser.add_argument("--again", type=Path, nargs="+", help="print the table of stored results")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw the film of --film to this file")
    parser.add_argument("--film", metavar="KIND:SEED", help="print each look of one film")
    parser.add_argument(
        "--traces", type=int, default=0, metavar="N", help="feed N random traces to the growth tracker"
    )
    parser.add_argument("--seed", type=int, default=0, help="first seed of --traces")
    return parser.parse_args()


def _stored(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line]


def _measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run the films in processes; store and return their records as they are ready."""
    from benchmarks.truth.one import kinds, run_film

    offset = 0 if options.half == "look" else 1
    seeds = [2 * i + offset for i in range(1 if options.quick else options.films)]
    names = [k for k in kinds() if not options.kinds or any(k.startswith(want) for want in options.kinds)]
    if not names:
        sys.exit(f"no such kind; there are: {' '.join(kinds())}")
    work = [(kind, seed) for seed in seeds for kind in names]
    out = options.out.open("w") if options.out else None
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn) as pool:
        futures = [pool.submit(run_film, kind, seed, options.server) for kind, seed in work]
        for done, future in enumerate(as_completed(futures), 1):
            record = future.result()
            if out:
                out.write(json.dumps(record) + "\n")
                out.flush()
            if sys.stderr.isatty():
                print(f"\r{done} of {len(work)} films", end="", file=sys.stderr, flush=True)
            yield record
    if out:
        out.close()


if __name__ == "__main__":
    main()
