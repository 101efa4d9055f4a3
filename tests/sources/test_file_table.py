"""The table of all readers is complete: each has a cell for each trait."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.sources import test_table_axes, test_table_depth, test_table_pixels, test_table_times
from tests.sources.file_table import READERS, Cell

TRAITS = {
    "pixels": test_table_pixels.CELLS,
    "axes": test_table_axes.CELLS,
    "times": test_table_times.CELLS,
    "depth": test_table_depth.CELLS,
}


@pytest.mark.parametrize("trait", TRAITS)
def test_each_reader_has_a_cell(trait: str) -> None:
    """No reader is without a test of a trait, and no cell is of an unknown reader."""
    cells: Sequence[Cell] = TRAITS[trait]
    assert {cell.reader for cell in cells} == set(READERS)
    names = [(cell.reader, cell.what) for cell in cells]
    assert len(set(names)) == len(names)
