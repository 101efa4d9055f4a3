"""Folders that tests read from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

REPO: Final = Path(__file__).parents[1]
DATA: Final = REPO / "tests" / "data"
WIRE: Final = DATA / "wire"
"""Recorded traffic of the hosted service's own client, with the shards that it sent."""
