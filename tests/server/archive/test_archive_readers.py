"""A reader of a running stream sees complete chunks only, and never an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPO
from tests.server.archive.archive_helpers import commit, new_archive

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("reader", ["zarr", "xarray", "tensorstore"])
def test_readers_in_another_process(tmp_path: Path, reader: str) -> None:
    """Reads during 60 commits: no error, no wrong frame, and no array gets shorter."""
    archive = new_archive(tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(HERE / "archive_reader.py"), str(archive.folder / "frames.zarr"), reader],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        for index in range(60):
            commit(archive, index)
        archive.update_about(status="success")
        archive.finish()
        reads, longest = map(int, process.stdout.read().split())
    assert process.returncode == 0
    assert reads > 2
    assert longest == 240
