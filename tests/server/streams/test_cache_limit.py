"""A full cache loses its oldest shards, while the event loop goes on (atomstream.server.streams.cache_limit)."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

from atomstream.server.streams.cache_limit import YOUNG_S, cached_streams, shrink

NBYTES = 100


async def test_old_shards_are_removed_outside_of_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of streams in use the oldest shards go until enough is free; young ones stay. All of it happens in a thread."""
    now = time.time()
    ages = {0: 3 * YOUNG_S, 1: 5 * YOUNG_S, 2: 2 * YOUNG_S, 3: 0.5 * YOUNG_S}
    chunks = tmp_path / str(uuid4()) / "frames.zarr/frames/c"
    for index, age_s in ages.items():
        shard = chunks / str(index) / "0/0"
        shard.parent.mkdir(parents=True)
        shard.write_bytes(bytes(NBYTES))
        os.utime(shard, (now - age_s, now - age_s))
    threads, unlink = set(), Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        threads.add(threading.get_ident())
        unlink(path, missing_ok=missing_ok)

    async def is_open(_folder: Path) -> bool:
        return False

    monkeypatch.setattr(Path, "unlink", noted)

    def left() -> set[int]:
        return {int(path.parents[1].name) for path in chunks.glob("*/0/0")}

    assert await shrink(cached_streams(tmp_path), 399, is_open, lambda: now) == 3 * NBYTES
    assert left() == {0, 2, 3}
    assert await shrink(cached_streams(tmp_path), 1, is_open, lambda: now) == NBYTES
    assert left() == {3}
    assert threads
    assert threading.get_ident() not in threads
