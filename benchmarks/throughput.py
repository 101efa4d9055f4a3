"""Acknowledged frames per second, as fast as possible: our client and the peer to the sink, acquire-zarr to disk."""

from __future__ import annotations

from benchmarks.report import Goal, Row, Who
from benchmarks.runner import Plan, main
from benchmarks.runs import Answer, Size, unpaced


def measure(plan: Plan) -> list[Row]:
    """Measure with the spool on a RAM disk, then on disk; and the compression ratio."""
    rows = []
    for size in plan.sizes():
        rows += [_rates(plan, size, on_disk=False), _encoder(plan, size), _ratio(plan, size)]
        rows.append(_rates(plan, size, on_disk=True))
    return rows


def _rates(plan: Plan, size: Size, *, on_disk: bool) -> Row:
    # The same argument as in other benchmarks, so that the cached run is used.
    answers = unpaced(plan, size, on_disk=True) if on_disk else unpaced(plan, size)
    figures: dict[Who, list[float]] = {
        who: [answer["frames"] / answer["wall_s"] for answer in runs]
        for who, runs in answers.items()
        if who != "bare"
    }
    figures["bare"] = [answer["zstd_fps"] for answer in answers["bare"]]
    return Row(
        f"acknowledged, {size[0]}x{size[1]}, spool {'on disk' if on_disk else 'in memory'}",
        "frames/s",
        figures,
        () if on_disk else (Goal(6.0, "peer", at_least=True), Goal(2.2, "acquire", at_least=True)),
        "bare: zstd level 1 alone on two threads; acquire-zarr writes to the same folder as the spool",
    )


def _encoder(plan: Plan, size: Size) -> Row:
    answers = unpaced(plan, size)
    figures: dict[Who, list[float]] = {"ours": [answer["encoder_fps"] for answer in answers["bare"]]}
    if "peer" in answers:
        figures["peer"] = [answer["frames"] / answer["wall_s"] for answer in answers["peer"]]
    name = f"our encoder alone on two threads, {size[0]}x{size[1]}"
    return Row(name, "frames/s", figures, (), "what the row above has at most; peer: acknowledged")


def _ratio(plan: Plan, size: Size) -> Row:
    answers: dict[Who, list[Answer]] = unpaced(plan, size)
    figures: dict[Who, list[float]] = {
        who: [answer["ratio"] for answer in answers[who]]
        for who in ("ours", "peer", "bare")
        if who in answers
    }
    return Row(f"raw by sent bytes, {size[0]}x{size[1]}", "", figures, (Goal(0.999, "peer", at_least=True),))


if __name__ == "__main__":
    main(measure)
