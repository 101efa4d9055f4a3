"""A plain script: the camera delivers chunks of frames, the script pushes them.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/plain_script.py --chunks 3
"""

from __future__ import annotations

import argparse
import math
import time

from atomstream import RHEEDStreamer
from atomstream.sources import GrowthSpec, Simulator


def main(num_chunks: int, spec: GrowthSpec) -> None:
    """Film ``num_chunks`` chunks of 2 s."""
    chunk_size = math.ceil(2.0 * spec.fps)
    camera = Simulator(spec)
    with RHEEDStreamer() as streamer:
        data_id = streamer.initialize(spec.fps, 0.0, chunk_size, stream_name="Plain script")
        for chunk_idx in range(num_chunks):
            time.sleep(chunk_size / spec.fps)  # the camera exposes
            frames = camera.frames(chunk_idx * chunk_size, chunk_size)
            streamer.push(data_id, chunk_idx, frames)
        report = streamer.finalize(data_id)
    print(f"data_id: {data_id}")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    main(args.chunks, GrowthSpec(args.height, args.width, args.fps))
