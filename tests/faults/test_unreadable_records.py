"""Records that the disk can't read while their stream continues (P13)."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from atomstream import AsyncRHEEDStreamer, retry
from atomstream.records import StreamReport
from atomstream.system.files import FileSystem
from tests.faults.fault_helpers import Film, push_without_server
from tests.live_server import LiveServer, Serve

FILM = Film(7, n=4, height=16, width=20)
COUNT = 20


async def reported(
    server: LiveServer, spool: Path, monkeypatch: pytest.MonkeyPatch, record: str, failures: int
) -> StreamReport:
    """The report of a stream whose disk fails to open ``record`` a number of times."""
    left, open_read = [failures], FileSystem.open_read

    def failing(disk: FileSystem, path: Path) -> io.FileIO:
        if path.name == record and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return open_read(disk, path)

    monkeypatch.setattr(FileSystem, "open_read", failing)
    monkeypatch.setattr(retry, "BASE_S", 0.01)
    async with AsyncRHEEDStreamer(
        server.api_key, server.url, None, spool, spool_min_free_bytes=0, clock_sync=False, buffer_bytes=6000
    ) as made:
        data_id = await push_without_server(made, server, FILM, COUNT)
        await server.start()
        return await made.finalize(data_id, 60.0)


async def test_a_failed_read_is_repeated(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few EIO errors for a record: the stream continues, and all chunks arrive."""
    report = await reported(await serve(), tmp_path, monkeypatch, "chunk-00000003.rec", 3)
    assert (report["chunks_uploaded"], report["lost"]) == (COUNT, [])


async def test_only_the_unreadable_record_is_lost(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A permanent EIO for one record: it is quarantined and reported, and the others arrive."""
    with pytest.warns(RuntimeWarning, match="3"):
        report = await reported(await serve(), tmp_path, monkeypatch, "chunk-00000003.rec", 10**6)
    assert (report["chunks_uploaded"], report["chunks_failed"]) == (COUNT - 1, 1)
    assert [index for index, _ in report["lost"]] == [3]
    assert list(tmp_path.rglob("quarantine/chunk-00000003.rec"))
