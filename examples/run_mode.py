"""Frames that are in memory already, streamed from a generator at the camera's pace.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/run_mode.py recorded_frames.npy --fps 60
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np

from atomstream import RHEEDStreamer


def frame_generator(all_frames: np.ndarray, chunk_size: int, fps: float) -> Iterator[np.ndarray]:
    """Yield chunks at the camera's pace."""
    for start in range(0, len(all_frames), chunk_size):
        yield all_frames[start : start + chunk_size]
        time.sleep(chunk_size / fps)


def main(path: str, fps: float) -> None:
    """Stream the frames (N, H, W) of a .npy file."""
    frames = np.load(path)
    chunk_size = math.ceil(2.0 * fps)
    with RHEEDStreamer() as streamer:
        data_id = streamer.initialize(fps, 0.0, chunk_size, stream_name="Playback")
        streamer.run(data_id, frame_generator(frames, chunk_size, fps))
        report = streamer.finalize(data_id)
    print(f"data_id: {data_id}")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path")
    parser.add_argument("--fps", type=float, default=60.0)
    args = parser.parse_args()
    main(args.path, args.fps)
