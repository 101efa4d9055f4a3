"""Helpers of the archive's tests: chunks with known frames, their upload claims, and commits of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from atomstream.records import Chunk, FrameMeta, Frames, Timestamp
from atomstream.server.archive.records import CommitResult, UploadClaims
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.shard import ShardEncoder, dtype_name
from atomstream.system.files import LOCAL, FileSystem

START_MS = 1_735_689_600_000.0
FPS = 100.0
ABOUT = {"data_id": "one", "name": "Growth 001", "fps": FPS, "rpm": 0.0, "status": "stream_active"}


def frames_of(index: int, n: int = 4, shape: tuple[int, int] = (5, 6), dtype: Any = np.uint8) -> Frames:
    """Frames that are different for each index, none of them black."""
    rng = np.random.default_rng(index + 1)
    return rng.integers(1, np.iinfo(dtype).max, (n, *shape)).astype(dtype)


def body_of(frames: Frames, meta: FrameMeta = FrameMeta(), level: int = 1) -> bytes:  # noqa: B008  (frozen)
    """The shard of ``frames`` as a client sends it."""
    return b"".join(ShardEncoder(level).encode(Chunk("one", 0, frames, Timestamp(0.0), meta)).pieces)


def claims_of(index: int, frames: Frames, chunk_size: int = 4, **changes: Any) -> UploadClaims:
    """The upload claims for those frames."""
    start = START_MS + index * chunk_size * 1000 / FPS
    fields: dict[str, Any] = {
        "data_id": "one",
        "index": index,
        "dims": frames.shape,
        "dtype": dtype_name(frames),
        "chunk_size": chunk_size,
        "fps": FPS,
        "start_unix_ms": start,
        "end_unix_ms": start + len(frames) * 1000 / FPS,
    }
    return UploadClaims(**{**fields, **changes})


def commit_body(
    archive: StreamArchive, claims: UploadClaims, body: bytes, observe: Callable[..., None] | None = None
) -> CommitResult:
    """Receive ``body`` as the server does, and commit it."""
    part = archive.incoming()
    part.write_bytes(body)
    return archive.commit(claims, part, google_crc32c.value(body), observe)


def commit(archive: StreamArchive, index: int, frames: Frames | None = None, **changes: Any) -> CommitResult:
    """Commit the given frames, or those that belong to ``index``."""
    pixels = frames_of(index) if frames is None else frames
    return commit_body(archive, claims_of(index, pixels, **changes), body_of(pixels))


def new_archive(folder: Path, file_system: FileSystem = LOCAL) -> StreamArchive:
    """A new archive in ``folder/one``."""
    return StreamArchive.create(folder / "one", ABOUT, file_system)


def read_zarr(archive_folder: Path, name: str = "frames") -> Any:
    """The array's values as zarr-python reads them through the group."""
    import zarr

    return np.asarray(zarr.open_group(archive_folder / "frames.zarr", mode="r")[name][:])
