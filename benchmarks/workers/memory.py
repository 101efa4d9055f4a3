"""Pushes into a client whose server does not answer, and reports the memory used. Prints one JSON line.

The peak is the high-water mark of Linux since just before the first push, so no sampling is needed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.load(job["frames"])
    streamer = importlib.import_module(job["module"]).RHEEDStreamer(
        "key", job["url"], None, job["spool"], spool_min_free_bytes=0, **job.get("settings", {})
    )
    data_id = str(streamer.initialize(fps=job["fps"], rotations_per_min=0.0, chunk_size=len(source)))
    peak = Peak()
    pusher = threading.Thread(target=push, args=(streamer, data_id, source, job["chunks"]), daemon=True)
    pusher.start()
    pusher.join(job["seconds"])
    print(json.dumps({"grown": peak.grown(), "chunk": source.nbytes}), flush=True)
    os._exit(0)  # exit without waiting for the server


def push(streamer: Any, data_id: str, source: np.ndarray, chunks: int) -> None:
    """Push all chunks; this blocks while the buffer is full."""
    for k in range(chunks):
        streamer.push(data_id, k, source)


class Peak:
    """Measures the peak of the resident memory above its value at creation."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the high-water mark
        self._base = _status("VmRSS")

    def grown(self) -> int:
        """Return the peak in bytes."""
        return _status("VmHWM") - self._base


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
