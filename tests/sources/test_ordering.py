from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atomstream.sources import open_source
from atomstream.sources.ordering import ordered
from tests.sources.source_files import FRAMES, read, write_image


@pytest.mark.parametrize(
    "names",
    [
        ["frame1", "frame2", "frame10"],
        ["Frame1", "frame2", "FRAME10"],
        ["T-10", "T-5", "T0", "T5"],
        ["-5", "-1", "5"],
        ["run-1", "run-2", "run-10"],
        ["t0.125", "t0.25", "t0.5", "t1"],
        ["T=-1.5", "T=-1.25", "T=0.5"],
        ["r1.1", "r1.2", "r1.9", "r1.10"],
        ["a1.2.9", "a1.2.10"],
        ["2025-02-28_11", "2025-03-01_9", "2025-03-01_10"],
        ["9", "10", "a", "a1", "b"],
        ["x.0002", "x.0010"],
        ["２", "１２"],
        ["img_000000002_Default_000", "img_000000010_Default_000"],
        ["s1_f2", "s1_f10", "s2_f1"],
        ["12-05AM", "9-59AM", "11-59AM", "12-01PM", "1-00PM"],
        ["2024-01-01 11_59_00 AM", "2024-01-01 1_05_33 PM", "2024-01-02 12_00_01 am"],
        ["frame2am", "frame10am"],
    ],
)
def test_names_are_ordered_as_people_count(names: list[str]) -> None:
    """Numbers count by value, also with signs and decimals; hyphens and counters with points are distinguished."""
    paths = [Path(f"{name}.png") for name in names]
    for given in (paths, paths[::-1]):
        assert ordered(given) == paths


def test_images_in_the_order_of_their_times(tmp_path: Path) -> None:
    """``order="mtime"`` takes the times of the last change; the same moment is ordered by name."""
    for k, stamp in enumerate([30, 10, 10, 20]):
        path = tmp_path / f"f{k}.png"
        write_image(path, FRAMES[k])
        os.utime(path, (stamp, stamp))
    np.testing.assert_array_equal(read(open_source(tmp_path, order="mtime")), FRAMES[[1, 2, 3, 0]])
    np.testing.assert_array_equal(read(open_source(tmp_path)), FRAMES[:4])
