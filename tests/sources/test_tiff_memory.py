"""A chunk of TIFF pages is read into its array at once: neither time nor memory is spent on a second copy."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from atomstream.sources import open_source

tifffile = pytest.importorskip("tifffile")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pages_are_read_into_their_chunk(tmp_path: Path, byteorder: str) -> None:
    """The pixels are right in both byte orders; in that of the computer the memory is that of one chunk."""
    pages = np.random.default_rng(1).integers(0, 60_000, (40, 64, 80)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "growth.tif", byteorder=byteorder) as file:
        for page in pages:
            file.write(page, contiguous=False)
    source = open_source(tmp_path / "growth.tif")
    next(iter(source.chunks(4)))
    tracemalloc.start()
    try:
        (chunk,) = source.chunks(40)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(chunk.frames, pages)
    if np.dtype(np.uint16).newbyteorder(byteorder).isnative:
        assert peak < 1.5 * pages.nbytes


def test_many_pages_with_a_description_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such pages are one series, so the time to open a file does not grow with the square of their number."""
    pages = np.random.default_rng(1).integers(0, 255, (200, 4, 6)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "growth.tif") as file:
        for page in pages:
            file.write(page, contiguous=False)
    compared = list[int]()
    real = tifffile.TiffPage.is_reduced.fget
    monkeypatch.setattr(
        tifffile.TiffPage, "is_reduced", property(lambda page: compared.append(1) or real(page))
    )
    source = open_source(tmp_path / "growth.tif")
    np.testing.assert_array_equal(np.concatenate([one.frames for one in source.chunks(64)]), pages)
    assert len(compared) < 10 * len(pages)
