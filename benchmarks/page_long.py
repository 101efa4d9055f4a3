"""Opening the page of a stream of eight hours at 120 frames a second, in a real Chromium."""

from __future__ import annotations

import shutil
import time

import numpy as np

from atomstream import RHEEDStreamer
from atomstream.results import UNITS
from atomstream.server.archive.stream_archive import StreamArchive
from benchmarks.exports import fill, some_frames
from benchmarks.page_live import ARGS, NAMES
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.serving import KEY, running_server

LIMIT_S = 60.0
SHOWN = """() => Number(document.getElementById("canvas")?.dataset.pictures) > 0
  && performance.getEntriesByType("resource").some((one) => one.name.includes("/series?") && one.responseEnd > 0)"""
"""True when the page has drawn its picture and received its charts."""


def measure(plan: Plan) -> list[Row]:
    """The page is opened ``repeats`` times; the first time the server has read nothing of the stream yet."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        return [Row("page of eight hours", "", {}, (), "no Chromium on this machine")]
    folder, chunks = plan.disk / "long", 20 if plan.quick else round(8 * 3600 * plan.fps / plan.chunk)
    with (
        running_server(folder) as server,
        RHEEDStreamer(KEY, server.url, None, plan.shm / "long-spool") as streamer,
    ):
        data_id = streamer.initialize(plan.fps, 0.0, plan.chunk, "eight hours")
        streamer.push(data_id, 0, some_frames(plan, 0), capture_start_ms_utc=1.7e12)
        streamer.finalize(data_id)
    stream = folder / "streams" / data_id
    fill(plan, stream, data_id, range(1, chunks))
    archive = StreamArchive.open(stream)
    for first in range(0, chunks * plan.chunk, 1 << 16):
        count = min(1 << 16, chunks * plan.chunk - first)
        values = np.random.default_rng(first).normal(1000.0, 50.0, count).astype(np.float32)
        columns = dict.fromkeys(("specular_intensity", "growth_rate_ml_s", "lattice_spacing"), values)
        archive.results.write(first, columns, UNITS)
    archive.results.sync()
    taken = []
    with running_server(folder) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        origin = {"Origin": server.url}
        assert page.context.request.post(f"{server.url}/session", data={"key": KEY}, headers=origin).ok
        for _ in range(max(2, plan.repeats)):
            page.goto("about:blank")
            begun = time.perf_counter()
            page.goto(f"{server.url}/streams/{data_id}", wait_until="commit")
            while not page.evaluate(SHOWN):
                page.wait_for_timeout(10)
                assert time.perf_counter() - begun < LIMIT_S, "the page does not show the stream"
            taken.append(time.perf_counter() - begun)
        browser.close()
    name = (
        f"page of {chunks * plan.chunk / plan.fps / 3600:.3g} h at {plan.fps:g} fps, picture and charts shown"
    )
    return [
        Row(name, "s", {"ours": taken[1:]}, (Goal(1.5),)),
        Row(f"{name}, for the first time", "s", {"ours": taken[:1]}),
    ]


if __name__ == "__main__":
    main(measure)
