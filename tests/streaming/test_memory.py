"""The memory of a real process stays within the documented formula while the server accepts nothing."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from atomstream.testing import MemoryService
from tests.paths import REPO
from tests.streaming.memory_child import CHUNK
from tests.streaming.scripted_faults import KEY, held
from tests.streaming.slow_disk_child import SHAPE

MIB = 1 << 20
ENCODER_CONTEXTS = 2 * 4 * MIB
"""Two zstd contexts of level 1 and the buffers for one frame."""
MARGIN = 12 * MIB
"""For memory outside the formula: free lists of the allocator, thread stacks, modules that are imported later."""
OBJECTS = 2048
"""Bytes of Python objects per waiting chunk; they count only for very small chunks."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit_mib", "side", "levels"), [(8, 1024, 256), (96, 1024, 256), (64, 96, 32)]
)  # incompressible noise; small frames that compress to five eighths
async def test_resident_memory_stays_below_the_formula(
    tmp_path: Path, limit_mib: int, side: int, levels: int
) -> None:
    """With every upload hanging and no disk, pushing until push waits grows the process by no more than
    buffer_bytes + one chunk + upload_concurrency * 2 MiB + the encoders' contexts, and a margin.
    """
    (tmp_path / "file").touch()  # a folder in which no spool can be created
    never = asyncio.Event()
    async with MemoryService() as service:
        service.fault_for = lambda attempt: held(never) if attempt.step == "put" else None
        result = await result_of(
            never, "memory_child.py", service.url, KEY, str(tmp_path / "file" / "spool"),
            str(limit_mib * MIB), str(side), str(levels),
        )  # fmt: skip
    one_chunk = CHUNK * side * side
    formula = limit_mib * MIB + one_chunk + 4 * 2 * MIB + ENCODER_CONTEXTS
    assert result["grown"] <= formula + OBJECTS * result["chunks"] + MARGIN, result
    assert result["chunks"] >= 1
    assert result["used"] <= limit_mib * MIB + 2 * one_chunk


@pytest.mark.slow
async def test_a_slow_disk_takes_no_more_memory(tmp_path: Path) -> None:
    """With a disk that is slower than the encoders, many waiting chunks stay within the same formula."""
    limit = 64 * MIB
    never = asyncio.Event()
    async with MemoryService() as service:
        service.fault_for = lambda attempt: held(never) if attempt.step == "put" else None
        result = await result_of(
            never, "slow_disk_child.py", service.url, KEY, str(tmp_path / "spool"), str(limit)
        )
    assert result["used"] > 0.9 * limit, result  # otherwise the disk delayed nothing
    formula = limit + math.prod(SHAPE) + 4 * 2 * MIB + ENCODER_CONTEXTS
    assert result["grown"] <= formula + MARGIN, result


async def result_of(never: asyncio.Event, program: str, *arguments: str) -> Any:
    """The line that a child script of this folder prints; ``never`` is set after it, so that nothing hangs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).parent / program), *arguments,
        stdout=PIPE, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert child.stdout is not None
    try:
        return json.loads(await child.stdout.readline())
    finally:
        child.kill()
        await child.communicate()
        never.set()
