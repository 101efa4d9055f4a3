"""The page of a running stream in a real Chromium: age of the picture, and the cost of following in its main thread."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any, Final

import numpy as np

from benchmarks.frames import frames_file
from benchmarks.processes import WORKERS, started
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.serving import KEY, running_server

CHUNK_S: Final = 0.1
WARM_UP_S: Final = 8.0
"""Time in s in which the page opens and the analysis finds the pattern."""
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")

SHOWN: Final = """() => {
  const canvas = document.getElementById("canvas");
  window.shown = [];
  new MutationObserver(() => window.shown.push([Number(canvas.dataset.frame), Date.now()]))
    .observe(canvas, { attributes: true, attributeFilter: ["data-pictures"] });
}"""
"""Notes the number and the time of each picture that the page draws."""


def measure(plan: Plan) -> list[Row]:
    """Frames of 480x640 at 120 a second, one by one, in chunks of 0.1 s; browser and server on the same cores."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        return [Row("page of a running stream", "", {}, (), "no Chromium on this machine")]
    runs = [_run(plan, k, path) for k in range(plan.repeats)]
    name = "page in Chromium, chunks of 0.1 s"
    return [
        Row(f"{name}: picture since exposure, median", "ms", {"ours": [run["median"] for run in runs]}, (Goal(250.0),)),
        Row(f"{name}: picture since exposure, p95", "ms", {"ours": [run["p95"] for run in runs]}),
        Row(f"{name}: pictures", "1/s", {"ours": [run["rate"] for run in runs]}),
        Row(f"{name}: main thread, part of a core", "%", {"ours": [run["busy"] for run in runs]}, (Goal(15.0),)),
    ]  # fmt: skip


def _run(plan: Plan, k: int, chromium: str) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    size, warm_up_s = ((48, 64), 2.0) if plan.quick else ((480, 640), WARM_UP_S)
    with running_server(plan.disk / f"page-{k}") as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        logged_in = page.context.request.post(
            f"{server.url}/session", data={"key": KEY}, headers={"Origin": server.url}
        )
        assert logged_in.ok, logged_in.text()
        job = {
            **server.login, "frames": str(frames_file(plan.shm, *size, plan.chunk)), "fps": plan.fps,
            "chunk": round(CHUNK_S * plan.fps), "seconds": warm_up_s + max(plan.seconds, 2.0),
            "spool": str(plan.shm / f"page-{k}-spool"),
        }  # fmt: skip
        with started(str(WORKERS / "film.py"), json.dumps(job)) as film:
            assert film.stdout is not None
            page.goto(f"{server.url}/streams/{json.loads(film.stdout.readline())}")
            page.evaluate(SHOWN)
            page.wait_for_timeout(1e3 * warm_up_s)
            tools = page.context.new_cdp_session(page)
            tools.send("Performance.enable", {"timeDomain": "threadTicks"})
            before, begun = _task_s(tools), time.perf_counter()
            since_ms = 1e3 * time.time()
            page.wait_for_timeout(1e3 * (job["seconds"] - warm_up_s - 0.5))
            busy, took_s = _task_s(tools) - before, time.perf_counter() - begun
            shown = [one for one in page.evaluate("window.shown") if one[1] > since_ms]
            exposed = json.loads(film.stdout.readline())
        browser.close()
    ages = np.array([at_ms - exposed[int(frame)] for frame, at_ms in shown])
    return {
        "median": float(np.median(ages)),
        "p95": float(np.percentile(ages, 95)),
        "rate": len(ages) / took_s,
        "busy": 100.0 * busy / took_s,
    }


def _task_s(tools: Any) -> float:
    """Processor time in s of the main thread of the page so far (thread ticks: without waiting for a core)."""
    metrics = tools.send("Performance.getMetrics")["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


if __name__ == "__main__":
    main(measure)
