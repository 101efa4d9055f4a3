"""Damaged records of a dead client are reported when the next client starts, with or without a server (P11)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.spool import StreamSpool, VerifyResult, verify_records
from atomstream.streaming import recovery
from tests.faults.fault_damage import flip
from tests.faults.fault_helpers import Film, push_without_server
from tests.live_server import LiveServer, Serve

FILM = Film(7, n=4, height=16, width=20)
COUNT = 4


def streamer(server: LiveServer, spool: Path) -> AsyncRHEEDStreamer:
    return AsyncRHEEDStreamer(
        server.api_key, server.url, None, spool, spool_min_free_bytes=0, clock_sync=False
    )


async def left_behind(server: LiveServer, spool: Path) -> str:
    """A stream with all its chunks on disk and a stopped server."""
    async with streamer(server, spool) as made:
        return await push_without_server(made, server, FILM, COUNT)


async def until_failed(made: AsyncRHEEDStreamer, count: int) -> None:
    """Wait until ``count`` chunks are in quarantine; the test's timeout limits it."""
    while (await made.spool_status())["chunks_failed"] < count:
        await asyncio.sleep(0.01)


async def test_a_flipped_bit_is_reported_during_an_outage(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A record with a flipped bit is quarantined, logged and counted during an outage; the others arrive after it."""
    server = await serve()
    data_id = await left_behind(server, tmp_path)
    (record,) = tmp_path.rglob("chunk-00000002.rec")
    flip(record, record.stat().st_size - 30)
    async with streamer(server, tmp_path) as later:
        assert await later.resume(data_id) == COUNT
        with caplog.at_level(logging.ERROR):
            await until_failed(later, 1)
        (status,) = (await later.spool_status())["streams"]
        assert (status["chunks_quarantined_on_disk"], status["chunks_pending"]) == (1, COUNT - 1)
        assert "chunk-00000002.rec is damaged: its payload does not match its CRC-32C" in caplog.text
        await server.start()
        with pytest.warns(RuntimeWarning, match="2"):
            report = await later.finalize(data_id, 30.0)
    assert (report["chunks_uploaded"], report["chunks_failed"]) == (COUNT - 1, 1)
    assert [index for index, _ in report["lost"]] == [2]
    assert (record.parent / "quarantine" / record.name).exists()
    archive = server.archive(data_id)
    assert sorted(archive.chunks()) == [0, 1, 3]
    for index in archive.chunks():
        at = index * FILM.n
        np.testing.assert_array_equal(archive.frames(at, at + FILM.n), FILM.chunk(index))


async def test_quarantined_chunks_are_not_reported_as_delivered(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last log message about the chunks of an earlier process has the number in quarantine."""
    server = await serve()
    await left_behind(server, tmp_path)
    (record,) = tmp_path.rglob("chunk-00000001.rec")
    flip(record, record.stat().st_size - 30)
    await server.start()
    async with streamer(server, tmp_path):
        while "an earlier process left are delivered" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "delivered, except 1 chunk in quarantine" in caplog.text


async def test_a_close_during_the_verification_loses_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A streamer that is closed during the verification does not wait, and the next one verifies the rest."""
    server = await serve()
    data_id = await left_behind(server, tmp_path)
    await server.start()
    with monkeypatch.context() as patched:
        patched.setattr(recovery, "verify_records", first_then_never)
        async with streamer(server, tmp_path) as between:
            await between.resume(data_id)
            while (await between.spool_status())["chunks_pending"] == COUNT:
                await asyncio.sleep(0.01)
    assert sorted(server.archive(data_id).chunks()) == [0]
    async with streamer(server, tmp_path) as later:
        await later.resume(data_id)
        report = await later.finalize(data_id, 30.0)
    assert (report["chunks_uploaded"], report["lost"]) == (COUNT, [])


def first_then_never(spool: StreamSpool) -> Iterator[VerifyResult | None]:
    """The verification up to its first result, then a record without an end."""
    for finding in verify_records(spool):
        yield finding
        if finding is not None:
            yield from repeat(None)
