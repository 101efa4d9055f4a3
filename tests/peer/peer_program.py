"""A program of a user of the hosted service's client, after its public guide: push mode, run mode, search.

It runs with the client's own Python and is never imported by a test. Frames are made from a seed, so that the test can
make the same ones. It writes one JSON line.
"""

from __future__ import annotations

import json
import sys

import numpy as np

FPS, CHUNK, HEIGHT, WIDTH, SEED = 6.0, 12, 48, 64, 5  # the client accepts chunks of at least 2 s


def frames_of(n_frames: int) -> np.ndarray:
    """Frames (n_frames, HEIGHT, WIDTH), the same at each call."""
    return np.random.default_rng(SEED).integers(0, 256, (n_frames, HEIGHT, WIDTH), dtype=np.uint8)


def push_mode(streamer: object, n_frames: int) -> str:
    """The guide's push mode: sample, project, tags, one call per chunk."""
    data_id = streamer.initialize(
        fps=FPS,
        rotations_per_min=15.0,
        chunk_size=CHUNK,
        stream_name="Growth 001",
        physical_sample=sys.argv[5],
        project_id=sys.argv[6],
        tags=["night shift", "GaN"],
    )
    frames = frames_of(n_frames)
    for index, start in enumerate(range(0, n_frames, CHUNK)):
        streamer.push(data_id, index, frames[start : start + CHUNK])
    return data_id


def run_mode(streamer: object, n_frames: int) -> str:
    """The guide's run mode: an iterator of chunks."""
    data_id = streamer.initialize(fps=FPS, rotations_per_min=0.0, chunk_size=CHUNK, stream_name="Playback")
    frames = frames_of(n_frames)
    streamer.run(data_id, (frames[start : start + CHUNK] for start in range(0, n_frames, CHUNK)))
    return data_id


def main() -> None:
    """``peer_program.py URL KEY MODE N_FRAMES [SAMPLE PROJECT]``."""
    url, key, mode, n_frames = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    from atomscale.streaming import RHEEDStreamer

    streamer = RHEEDStreamer(api_key=key, endpoint=url)
    data_id = {"push": push_mode, "run": run_mode}[mode](streamer, n_frames)
    report = streamer.finalize(data_id)
    sys.stdout.write(json.dumps({"data_id": data_id, "report": report}, default=str) + "\n")


if __name__ == "__main__":
    main()
