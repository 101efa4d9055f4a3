"""The frames that all programs are given: made once by the simulator, kept in a file, mapped by each process."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from atomstream.sources import GrowthSpec, Simulator

SEED: Final = 3


def frames_file(folder: Path, height: int, width: int, count: int) -> Path:
    """A .npy of (count, height, width) uint8 frames in ``folder``, made if it is not there."""
    path = folder / f"frames-{count}x{height}x{width}.npy"
    if not path.exists():
        np.save(path, Simulator(GrowthSpec(height=height, width=width, seed=SEED)).frames(0, count))
    return path
