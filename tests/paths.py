"""Folders that tests read from, and a place for files that need no disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).parents[1]
DATA: Final = REPO / "tests" / "data"
WIRE: Final = DATA / "wire"
"""Recorded traffic of the hosted service's own client, with the shards that it sent."""


def _memory() -> str | None:
    shared = "/dev/shm"
    return shared if os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 << 30 else None


MEMORY: Final = _memory()
"""A folder in memory for ``tempfile``; None, the default folder, where there is none or it has less than 2 GiB.

An fsync takes no time there. On a disk it takes 5 ms, and the start of a server needs tens of them.
"""
