"""The memory of a real process stays within the stated formula while the server takes nothing (P7)."""

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

from tests.paths import REPO
from tests.streaming.hosted import KEY, held, hosted
from tests.streaming.memory_child import CHUNK
from tests.streaming.slow_disk_child import SHAPE

MIB = 1 << 20
ENCODER_CONTEXTS = 2 * 4 * MIB
"""Two zstd contexts of level 1 and the pieces that one frame is written to."""
MARGIN = 12 * MIB
"""For what is not ours to count: the allocator's own free lists, thread stacks, modules loaded late."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit_mib", "side", "levels"), [(8, 1024, 256), (96, 1024, 256), (64, 96, 32)]
)  # noise that nothing compresses; small frames of which five eighths remain
async def test_resident_memory_stays_below_the_formula(
    tmp_path: Path, limit_mib: int, side: int, levels: int
) -> None:
    """With every upload hanging and no disk, pushing until push waits grows the process by no more than
    buffer_bytes + one chunk + upload_concurrency * 2 MiB + the encoders' contexts, and a margin.
    """
    (tmp_path / "file").touch()  # where no spool can be made
    never = asyncio.Event()
    async with hosted() as service:
        service.verdict = lambda kind, data_id, index: held(never) if kind == "put" else None
        told = await told_by(
            never, "memory_child.py", service.url, KEY, str(tmp_path / "file" / "spool"),
            str(limit_mib * MIB), str(side), str(levels),
        )  # fmt: skip
    one_chunk = CHUNK * side * side
    assert told["grown"] <= limit_mib * MIB + one_chunk + 4 * 2 * MIB + ENCODER_CONTEXTS + MARGIN, told
    assert told["chunks"] >= 1
    assert told["used"] <= limit_mib * MIB + 2 * one_chunk


@pytest.mark.slow
async def test_a_slow_disk_takes_no_more_memory(tmp_path: Path) -> None:
    """Many chunks that wait for a disk which is slower than the encoders stay within the same formula."""
    limit = 64 * MIB
    never = asyncio.Event()
    async with hosted() as service:
        service.verdict = lambda kind, data_id, index: held(never) if kind == "put" else None
        told = await told_by(
            never, "slow_disk_child.py", service.url, KEY, str(tmp_path / "spool"), str(limit)
        )
    assert told["used"] > 0.9 * limit, told  # or the disk held nothing up
    formula = limit + math.prod(SHAPE) + 4 * 2 * MIB + ENCODER_CONTEXTS
    assert told["grown"] <= formula + MARGIN, told


async def told_by(never: asyncio.Event, program: str, *arguments: str) -> Any:
    """What a program of this folder says in its one line; ``never`` happens once it has, so that nothing hangs."""
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
