"""Long stream at 120 fps (``--seconds``): no losses, no backlog, constant memory."""

from __future__ import annotations

import numpy as np

from benchmarks.push_frame_jitter import runs
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.sink import running_sink


def measure(plan: Plan) -> list[Row]:
    """Run to the sink; the memory is the growth of the process from ``initialize`` to the end."""
    size = plan.sizes()[0]
    with running_sink() as sink:
        answers = runs(plan, size, {"url": sink.url})
    name = f"{plan.seconds:g} s at 120 fps, {size[0]}x{size[1]}"
    late = [1e3 * float(np.percentile(answer["late_s"], 99.9)) for answer in answers]
    return [
        Row(
            f"{name}: chunks lost", "", {"ours": [answer["not_uploaded"] for answer in answers]}, (Goal(0.0),)
        ),
        Row(f"{name}: chunks that wait at the end", "", {"ours": [answer["backlog"] for answer in answers]}),
        Row(f"{name}: memory grown", "MB", {"ours": [answer["rss_grown"] / 1e6 for answer in answers]}),
        Row(f"{name}: client CPU", "s/GB", {"ours": [answer["cpu_s"] / answer["gb"] for answer in answers]}),
        Row(f"{name}: a frame begun late, p99.9", "ms", {"ours": late}),
    ]


if __name__ == "__main__":
    main(measure)
