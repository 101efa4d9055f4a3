"""A recording, streamed in real time; by default six real RHEED frames of a growth of Sb.

Reads .npy, .npz, TIFF, videos, folders of images and Zarr. The command ``atomstream stream`` does the same.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/stream_recording.py
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from atomstream import RHEEDStreamer
from atomstream.sources import open_source, paced

SB = Path(__file__).parents[1] / "tests" / "data" / "sb_deposition_6x259x346.npz"


def main(path: Path, fps: float) -> None:
    """Stream ``path`` at ``fps`` frames a second."""
    source = open_source(path)
    chunk_size = math.ceil(2.0 * fps)
    with RHEEDStreamer() as streamer:
        data_id = streamer.initialize(fps, 0.0, chunk_size, stream_name=path.stem)
        chunks = paced(source.chunks(chunk_size), fps)
        streamer.run(data_id, (chunk.frames for chunk in chunks))
        report = streamer.finalize(data_id)
    print(f"data_id: {data_id}")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?", default=SB)
    parser.add_argument("--fps", type=float, default=2.0)
    args = parser.parse_args()
    main(args.path, args.fps)
