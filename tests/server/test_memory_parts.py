"""One limit for the memory of the server and its analysis processes: the sum of all parts is never above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.server.memory_parts import LEAST_WORKER_BYTES, MIB, PROGRAM_BYTES, MemoryParts
from atomstream.server.settings import ServerSettings


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize("frame", [1 << 20, 32 << 20, 512 << 20])
@pytest.mark.parametrize("more", [0, 1, 100 * MIB, 64 << 30])
def test_the_parts_never_exceed_the_limit(workers: int, frame: int, more: int) -> None:
    """From the least limit on, all parts together fit into it, and each process can analyse."""
    parts = MemoryParts(workers, 2, frame)
    for memory in (parts.least_bytes + more, parts.usual_bytes + more):
        for most_shared, most_worker in ((0, 0), (384 << 20, 1 << 30), (1 << 40, 1 << 40)):
            shared, worker = parts.shares(memory, most_shared, most_worker)
            assert parts.fixed_bytes + shared + worker * workers <= memory
            assert 0 <= shared <= most_shared
            assert worker >= LEAST_WORKER_BYTES
            assert worker <= (most_worker or memory)


def test_a_limit_that_is_too_small_is_refused(tmp_path: Path) -> None:
    """The message has the smallest possible limit, which is accepted."""
    parts = MemoryParts(2, 1, 1 << 20)
    with pytest.raises(ConfigError, match=f"the server needs {parts.least_bytes} bytes"):
        parts.shares(parts.least_bytes - 1, 0, 0)
    given = {"analysis_workers": 2, "decode_threads": 1, "max_frame_bytes": 1 << 20}
    assert (
        ServerSettings(tmp_path, memory_bytes=parts.least_bytes, **given).worker_memory_bytes
        == LEAST_WORKER_BYTES
    )
    with pytest.raises(ConfigError, match="memory_bytes=1 is too little"):
        ServerSettings(tmp_path, memory_bytes=1)


def test_settings_hold_what_is_left(tmp_path: Path) -> None:
    """Without a limit it is 3 GiB, and what was wanted is lowered to it; more processes get a higher one."""
    usual = ServerSettings(tmp_path, analysis_workers=2, decode_threads=2)
    assert usual.memory_bytes == 3 << 30
    assert usual.analysis_shared_bytes == ServerSettings.limits()["analysis_shared_bytes"]
    assert 800 * MIB < usual.worker_memory_bytes < 1024 * MIB
    many = ServerSettings(tmp_path, analysis_workers=32, decode_threads=2)
    assert many.memory_bytes > 32 * (PROGRAM_BYTES + LEAST_WORKER_BYTES)
    small = ServerSettings(
        tmp_path, analysis_workers=1, worker_memory_bytes=200 * MIB, analysis_shared_bytes=0
    )
    assert (small.worker_memory_bytes, small.analysis_shared_bytes) == (200 * MIB, 0)
