"""Writes the same chunks with acquire-zarr (C++) to a local folder, for comparison. Prints one JSON line."""

from __future__ import annotations

import json
import sys
import time

import acquire_zarr as aqz
import numpy as np


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    n, height, width = source.shape
    stream = aqz.ZarrStream(settings(job["spool"], n, height, width))
    stream.append(source)
    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(job["chunks"]):
        stream.append(source)
    stream.close()
    print(json.dumps({
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu,
        "gb": job["chunks"] * source.nbytes / 1e9,
        "frames": job["chunks"] * n,
    }))  # fmt: skip


def settings(folder: str, n: int, height: int, width: int) -> aqz.StreamSettings:
    """Return the settings: one-frame chunks with zstd level 1 in shards of ``n`` frames, as this client sends."""
    kind = aqz.DimensionType
    array = aqz.ArraySettings(
        output_key="frames",
        data_type=aqz.DataType.UINT8,
        compression=aqz.CompressionSettings(
            compressor=aqz.Compressor.BLOSC1, codec=aqz.CompressionCodec.BLOSC_ZSTD, level=1, shuffle=0
        ),
        dimensions=[
            _dimension("time", kind.TIME, 0, 1, n),
            _dimension("y", kind.SPACE, height, height, 1),
            _dimension("x", kind.SPACE, width, width, 1),
        ],
    )
    return aqz.StreamSettings(store_path=folder, arrays=[array], overwrite=True)


def _dimension(name: str, kind: aqz.DimensionType, size: int, chunk: int, chunks: int) -> aqz.Dimension:
    return aqz.Dimension(
        name=name, kind=kind, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=chunks
    )


if __name__ == "__main__":
    main()
