"""Small arrays of an archive (atomstream.server.archive.small_arrays): written while other threads use the archive."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from atomstream.server.archive.small_arrays import SmallArray
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.system.files import FileSystem
from tests.server.archive.archive_helpers import ABOUT, read_zarr

FINISH_S = 0.2
"""Time in which :meth:`StreamArchive.finish` gets as far as it can while marks are written."""


class HeldDisk(FileSystem):
    """A disk that delays the file of a mark: it calls ``writing``, and writes after ``release``."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.release = threading.Event(), threading.Event()

    def write_atomic(self, target: Path, pieces: Iterable[Any], *args: Any, **options: Any) -> None:
        if "mark_label" in target.parts and target.name == "0":
            self.writing.set()
            self.release.wait(60.0)
        super().write_atomic(target, pieces, *args, **options)


def test_a_stream_ends_while_its_marks_are_written(tmp_path: Path) -> None:
    """Neither thread waits for the other for ever, whichever lock each of them has first."""
    disk = HeldDisk()
    archive = StreamArchive.create(tmp_path / "s", ABOUT, disk)
    marks = [SmallArray("mark_label", "mark", ["shutter"], "label of a mark")]
    with ThreadPoolExecutor(2) as threads:
        written = threads.submit(archive.write_small, marks)
        assert disk.writing.wait(60.0)
        finished = threads.submit(archive.finish)
        finished_first = threading.Event()
        finished.add_done_callback(lambda _done: finished_first.set())
        finished_first.wait(FINISH_S)
        disk.release.set()
        written.result(60.0)
        finished.result(60.0)
    assert read_zarr(archive.folder, "mark_label").tolist() == ["shutter"]
