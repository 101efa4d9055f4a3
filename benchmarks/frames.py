"""Frames for all programs: made once by the simulator, stored in a file, memory-mapped by each process."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from atomstream.sources import GrowthSpec, Simulator

SEED: Final = 3


def frames_file(folder: Path, height: int, width: int, count: int) -> Path:
    """Return a .npy file of (count, height, width) uint8 frames in ``folder``; it is made if missing."""
    path = folder / f"frames-{count}x{height}x{width}.npy"
    if not path.exists():
        np.save(path, Simulator(GrowthSpec(height=height, width=width, seed=SEED)).frames(0, count))
    return path
