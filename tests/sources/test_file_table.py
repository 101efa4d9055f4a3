"""The table of all readers is complete: each has a cell for each trait, here and in docs/files.md."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import pytest

from tests.paths import REPO
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


DAMAGE = {
    "npy": "test_damage.test_damage_at_frame_six", "npz": "test_damage.test_a_damaged_npz_is_refused",
    "zarr": "test_damage.test_damage_at_frame_six", "tiff": "test_damage.test_a_tiff_whose_chain_of_pages_is_broken",
    "png": "test_damage.test_damage_at_frame_six", "jpeg": "test_damage.test_damage_at_frame_six",
    "bmp": "test_damage.test_damage_at_frame_six", "pgm": "test_damage.test_damage_at_frame_six",
    "video": "test_video_damage.test_one_damaged_packet", "hdf5": "test_hdf5.test_a_damaged_chunk",
}  # fmt: skip
"""The test of damaged files of each reader."""
OTHERS = {
    "raw, .img, .imm": {
        "pixels": "test_raw.test_words", "axes": "test_raw.test_geometry", "times": "",
        "depth": "test_raw.test_packed_pixels", "damage": "test_raw.test_a_raw_file_cut_off",
    },
    ".seq": {
        "pixels": "test_norpix.test_seq", "axes": "test_norpix.test_seq", "times": "test_norpix.test_seq",
        "depth": "test_norpix.test_seq", "damage": "test_norpix.test_a_seq_file_cut_off",
    },
}  # fmt: skip
"""Readers whose files hold nothing but frames, with the tests of each trait; empty: their files have none."""


def documented() -> list[str]:
    """Return the rows of the table in the documentation."""
    rows = ["| reader | pixels | axes | times | depth | damage |", "|---|---|---|---|---|---|"]
    for reader in READERS:
        counts = [sum(cell.reader == reader for cell in cells) for cells in TRAITS.values()]
        rows.append(f"| {reader} | {' | '.join(map(str, counts))} | `{DAMAGE[reader]}` |")
    for name, tests in OTHERS.items():
        rows.append(
            f"| {name} | {' | '.join(f'`{test}`' if test else 'the files have none' for test in tests.values())} |"
        )
    return rows


def test_the_table_in_the_documentation() -> None:
    """The table has each reader with the number of its tests, and each test that it names exists."""
    assert "\n".join(documented()) in (REPO / "docs" / "files.md").read_text(encoding="utf-8"), "\n".join(
        documented()
    )
    for named in [*DAMAGE.values(), *(test for tests in OTHERS.values() for test in tests.values() if test)]:
        module, name = named.split(".")
        assert callable(getattr(importlib.import_module(f"tests.sources.{module}"), name))
