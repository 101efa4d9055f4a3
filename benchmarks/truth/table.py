"""The table: one row for each kind of film, the worst first, and the totals beside the goals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from benchmarks.truth.score import FALSE, RIGHT, SILENT, FilmScore, quantile, within

Column = tuple[str, int, Callable[[list[FilmScore]], str]]


def _sum(rows: Iterable[float]) -> float:
    return sum(rows)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _number(value: float, digits: int = 1) -> str:
    return "-" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.{digits}f}"


def _count(films: list[FilmScore], said: str) -> int:
    return sum(f.verdicts.count(said) for f in films)


def _all(films: list[FilmScore], name: str) -> list[float]:
    return [value for f in films for value in getattr(f, name)]


def false_share(films: list[FilmScore]) -> float:
    """Return the share of the reported numbers that are false."""
    reported = _sum(f.reported for f in films)
    return _count(films, FALSE) / reported if reported else 0.0


def _lived(films: list[FilmScore]) -> str:
    pulls = _all(films, "pulls")
    return "/".join(_number(within(pulls, k), 0) for k in (1, 2, 3)) if pulls else "-"


def _layers(films: list[FilmScore]) -> str:
    errors = [abs(e) for e in _all(films, "layer_errors")]
    return f"{_number(quantile(errors, 0.5), 2)}/{_number(quantile(errors, 0.95), 2)}" if errors else "-"


def _stop(films: list[FilmScore]) -> str:
    ends = [f for f in films if not math.isnan(f.stop_periods)]
    worst = max((abs(f.stop_error) for f in ends), default=math.nan)
    return f"{_number(max(f.stop_periods for f in ends))}, {_number(worst, 2)}" if ends else "-"


def _baseline(films: list[FilmScore]) -> str:
    theirs = round(_sum(f.baseline_right for f in films))
    both = round(_sum(f.both_right for f in films))
    return f"{both} of {theirs}, +{round(_sum(f.only_we for f in films))}" if theirs or both else "-"


COLUMNS: tuple[Column, ...] = (
    ("films", 6, lambda f: str(len(f))),
    ("reported", 9, lambda f: str(round(_sum(x.reported for x in f)))),
    ("false %", 8, lambda f: _percent(_count(f, FALSE), _sum(x.reported for x in f))),
    ("films", 6, lambda f: str(sum(FALSE in x.verdicts for x in f))),
    ("longest", 8, lambda f: _number(max(x.false_periods for x in f))),
    ("silent %", 9, lambda f: _percent(_count(f, SILENT), _count(f, SILENT) + _count(f, RIGHT) + _grown_false(f))),
    ("1/2/3 sigma", 12, _lived),
    ("sigma %", 8, lambda f: _number(100 * quantile(_all(f, "sigmas"), 0.5), 2)),
    ("first", 6, lambda f: _number(quantile([x.first for x in f], 0.5))),
    ("withdr.", 8, lambda f: str(sum(x.withdrawn for x in f))),
    ("layers 50/95", 13, _layers),
    ("falls", 6, lambda f: str(sum(x.falls for x in f))),
    ("stop, count", 12, _stop),
    ("baseline", 14, _baseline),
    ("summary", 8, lambda f: str(sum(x.summary_false for x in f))),
    ("alarms", 7, lambda f: str(sum(x.alarms for x in f))),
    ("crash", 6, lambda f: str(sum(bool(x.crash) for x in f))),
)  # fmt: skip

LEGEND = """
reported: numbers reported live; false %, films: of them false, and films with one; longest: the longest run of false
numbers in periods; silent %: looks without a number while layers grow; sigma %: median stated sigma; first: periods
until the first right number (median); withdr.: films in which a number was withdrawn and reported again; layers 50/95:
error of the reported count, median and 95 % quantile; falls: times the count fell; stop, count: periods until no rate
is reported after the last stop, and error of the count at the end (worst); baseline: checks right of those in which a
simple method is, + those in which only the analysis is; summary: films whose segments hold a rate that never was true;
alarms: changes and fractional orders reported (none happen)."""


def _grown_false(films: list[FilmScore]) -> int:
    """Return the false numbers reported while layers grow."""
    return sum(max(0, len(f.pulls) - f.verdicts.count(RIGHT)) for f in films)


def table(scores: list[FilmScore]) -> str:
    """Return the table of all kinds, worst first, with a row for all films together."""
    kinds: dict[str, list[FilmScore]] = {}
    for one in scores:
        kinds.setdefault(one.kind, []).append(one)
    width = max(len(kind) for kind in [*kinds, "all films"]) + 1
    lines = [" " * width + "".join(f"{title:>{size}}" for title, size, _ in COLUMNS)]
    ordered = sorted(kinds.items(), key=lambda item: _badness(item[1]), reverse=True)
    for name, films in [*ordered, ("all films", scores)]:
        lines.append(f"{name:<{width}}" + "".join(f"{show(films):>{size}}" for _, size, show in COLUMNS))
    return "\n".join(lines)


def _badness(films: list[FilmScore]) -> tuple[float, float, float]:
    crashed = sum(bool(f.crash) for f in films) / len(films)
    false_films = sum(FALSE in f.verdicts for f in films) / len(films)
    missed = _sum(f.baseline_right - f.both_right for f in films) / len(films)
    return crashed, false_films + 0.5 * false_share(films), missed


def totals(scores: list[FilmScore]) -> str:
    """Return the totals beside the goals, as a table in Markdown."""
    reported, false = _sum(f.reported for f in scores), _count(scores, FALSE)
    bad = sum(FALSE in f.verdicts for f in scores)
    theirs, both = _sum(f.baseline_right for f in scores), _sum(f.both_right for f in scores)
    ends = [f for f in scores if not math.isnan(f.stop_periods) and "marked" not in f.kind]
    periods = [f.stop_periods for f in ends]
    counts = [abs(f.stop_error) for f in ends]
    growing = [f for f in scores if not math.isnan(f.first)]
    firsts = [f.first for f in growing]
    again = _all(scores, "again")
    pulls = _all(scores, "pulls")
    near = sum(c <= 0.2 for c in counts)
    soon = sum(p <= 1.5 for p in periods)
    rows = [
        ("numbers reported live that are false", f"{_percent(false, reported)} % of {round(reported)}; longest "
         f"{_number(max((f.false_periods for f in scores), default=math.nan))} periods", "<= 0.3 %, <= 1 period"),
        ("films with a false number", f"{_percent(bad, len(scores))} % ({bad} of {len(scores)})", "<= 2 %"),
        ("right where a baseline is right", f"{round(both)} of {round(theirs)}", "all but 1 %"),
        ("right where no baseline is", f"{round(_sum(f.only_we for f in scores))}", ""),
        ("within 1 / 2 / 3 sigma", " / ".join(_number(within(pulls, k)) for k in (1, 2, 3)) + " %",
         "68-80 / >= 95 / >= 99.5 %"),
        ("after an unmarked stop: no rate within 1.5 periods",
         f"{soon} of {len(ends)}; median {_number(quantile(periods, 0.5))},"
         f" worst {_number(max(periods, default=math.nan))} periods", "all"),
        ("after an unmarked stop: count within 0.2 layers", f"{near} of {len(ends)}; median error "
         f"{_number(quantile(counts, 0.5), 2)}, worst {_number(max(counts, default=math.nan), 2)}", "all"),
        ("first right number, median", f"{_number(quantile(firsts, 0.5))} periods; never in "
         f"{sum(map(math.isinf, firsts))} of {len(firsts)}", "<= 2 periods"),
        ("the same after a restart or a step", f"{_number(quantile(again, 0.5))} periods; never in "
         f"{sum(map(math.isinf, again))} of {len(again)}", "<= 2 periods"),
        ("films with a number withdrawn and reported again",
         f"{_percent(sum(f.withdrawn for f in growing), len(growing))} %", "<= 3 %"),
        ("counts more than 3 sigma and 0.2 layers off",
         f"{_percent(_sum(f.layers_wrong for f in scores), len(_all(scores, 'layer_errors')))} %", ""),
        ("films in which the count falls", f"{sum(f.falls > 0 for f in scores)} of {len(scores)}", "0"),
        ("films with a false rate in the segments", f"{sum(f.summary_false for f in scores)} of {len(scores)}", "0"),
        ("films whose final rate is false", f"{sum(f.final_false for f in scores)} of {len(scores)}", "0"),
        ("crashes", f"{sum(bool(f.crash) for f in scores)} of {len(scores)} films", "0"),
    ]  # fmt: skip
    return "\n".join(
        ["| what | now | goal |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    )
