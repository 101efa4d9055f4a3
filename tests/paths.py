"""Folders that tests read from, and a place for files that need no disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).parents[1]
DATA: Final = REPO / "tests" / "data"
WIRE: Final = DATA / "wire"
"""Recorded traffic of the hosted service's own client, with the shards that it sent."""
MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory for ``tempfile``; None, the default folder, where there is none. An fsync takes no time there."""
