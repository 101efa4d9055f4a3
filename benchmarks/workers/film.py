"""Pushes frames in real time. Prints the stream's id, and at the end when each frame was exposed (Unix ms), as JSON."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from atomstream import RHEEDStreamer


def main() -> None:
    job = json.loads(sys.argv[1])
    frames, fps = np.ascontiguousarray(np.load(job["frames"])), job["fps"]
    exposed = []
    with RHEEDStreamer(job["key"], job["url"], None, job["spool"]) as streamer:
        data_id = streamer.initialize(fps, 0.0, job["chunk"], "film")
        print(json.dumps(data_id), flush=True)
        begun = time.perf_counter()
        for number in range(round(job["seconds"] * fps)):
            time.sleep(max(0.0, begun + number / fps - time.perf_counter()))
            exposed.append(1e3 * time.time())
            streamer.push_frame(data_id, frames[number % len(frames)], frame_id=number)
        streamer.finalize(data_id)
    print(json.dumps(exposed))


if __name__ == "__main__":
    main()
