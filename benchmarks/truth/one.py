"""One film by its kind and seed: run it, or print what was reported at each look."""

from __future__ import annotations

from pathlib import Path

from benchmarks.truth import catalogue, composites
from benchmarks.truth.picture import svg
from benchmarks.truth.score import layers_error, score, verdict
from benchmarks.truth.simulator import Film
from benchmarks.truth.watch import Record, watch


def kinds() -> list[str]:
    """Return the names of all kinds."""
    return [*catalogue.KINDS, *composites.TRACES]


def film(kind: str, seed: int) -> Film:
    """Return the film of a kind and seed."""
    made = composites.film if kind in composites.TRACES else catalogue.film
    return made(kind, seed)


def run_film(kind: str, seed: int, server: bool = False) -> Record:
    """Run the analysis on one film, with ``server`` through a real server, and return its record."""
    if server:
        from benchmarks.truth.through_server import watch_server

        return watch_server(film(kind, seed))
    return watch(film(kind, seed))


def print_film(kind: str, seed: int, server: bool = False, plot: Path | None = None) -> None:
    """Print each look of a film: what was reported, what is true, and why there is no number; draw it to ``plot``."""
    record = run_film(kind, seed, server)
    print(
        f"{'time s':>8}{'true':>10}{'reported':>10}{'sigma':>10}{'':>8}{'layers':>9}{'error':>8}{'counted':>9}  note"
    )
    for look in [*record["looks"], *([record["final"]] if "final" in record else [])]:
        cells = [look["true"], look["rate"], look["sigma"]]
        text = "".join(
            f"{'-' if c is None else format(c, '.4g'):>{w}}" for c, w in zip(cells, (10, 10, 10), strict=True)
        )
        counts = "".join(
            f"{'-' if c is None or c != c else format(c, '.2f'):>{w}}"
            for c, w in ((look["layers"], 9), (layers_error(look), 8), (look["counted"], 9))
        )
        said = verdict(look, record["slack"])
        print(f"{look['t']:8.2f}{text}{said:>8}{counts}  {look['why'] or look['note']}")
    for check in record["checks"]:
        print(
            f"check at {check['t']:.1f} s: true {check['true']:.4g}, fft {check['fft']}, sine {check['sine']}"
        )
    for segment in record["segments"]:
        print("segment", segment)
    result = score(record)
    print(
        f"stop {result.stop_periods:.2f} periods, count {result.stop_error:.2f}; withdrawn {result.withdrawn}; "
        f"first {result.first:.2f}; falls {result.falls}; {record['frames']} frames, {record['analysis_s']:.1f} s"
    )
    if record["crash"]:
        print(record["crash"])
    if plot:
        plot.write_text(svg(record), encoding="utf-8")
