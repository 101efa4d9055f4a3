"""Bad answers of the server: which requests are repeated, which pause the upload, which chunks are given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import NotFoundError, StreamGoneError, UnknownStreamError
from atomstream.testing import MemoryService
from tests.streaming.scripted_faults import KEY, answers, held
from tests.streaming.stream_helpers import (
    CHUNK,
    FPS,
    assert_sums,
    begin,
    make_async,
    noise,
    stream_stats,
    until,
)

S3_STALLED = "<?xml version='1.0'?><Error><Code>RequestTimeout</Code><Message>idle</Message></Error>"
S3_EXPIRED = (
    "<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
async def streamer(service: MemoryService) -> AsyncIterator[AsyncRHEEDStreamer]:
    async with make_async(service.url, KEY, upload_timeout_s=5.0) as made:
        yield made


async def assert_delivered(
    service: MemoryService, streamer: AsyncRHEEDStreamer, data_id: str, n_chunks: int
) -> None:
    report = await streamer.finalize(data_id)
    assert_sums(report)
    assert (report["chunks_uploaded"], report["lost"]) == (n_chunks, [])
    for k in range(n_chunks):
        np.testing.assert_array_equal(service.chunk(data_id, k), noise(k))


def tries(service: MemoryService, kind: str, index: int = 0) -> int:
    return sum(one[0] == kind and one[2] == index for one in service.attempts)


PASSING: dict[str, tuple[str, Any]] = {
    **{
        f"{kind} {status}": (kind, answers(status))
        for kind in ("url", "put")
        for status in (408, 425, 429, 500, 502, 503, 504, 507)
    },
    "expired URL": ("put", answers(403, S3_EXPIRED)),
    "stalled body": ("put", answers(400, S3_STALLED)),
    "URL is a web page": ("url", answers(200, "<html>Welcome to the lab's guest network</html>")),
    "URL is empty": ("url", answers(200, "")),
    "URL is null": ("url", answers(200, '[{"upload_id": "u", "url": null, "part": 0}]')),
    "URL is none": ("url", answers(200, '[{"url": "not a url"}]')),
    "URL list is empty": ("url", answers(200, "[]")),
    "PUT is accepted, not stored": ("put", answers(202)),
    "PUT has another checksum": ("put", answers(200, x_amz_checksum_crc32c="AAAAAA==")),
}


@pytest.mark.parametrize("name", PASSING)
async def test_transient_errors_are_retried(
    service: MemoryService, streamer: AsyncRHEEDStreamer, name: str
) -> None:
    """A transient error costs an attempt, never the chunk; each attempt requests a new upload URL."""
    kind, fault = PASSING[name]
    service.faults[kind].extend([fault, fault])
    data_id = await begin(streamer, 0)
    await assert_delivered(service, streamer, data_id, 1)
    assert tries(service, kind) == 3
    assert tries(service, "url") == 3


async def test_a_wrong_checksum_does_not_count_as_stored(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """If the server returns a checksum, a chunk counts as stored only if the checksum is equal."""
    service.faults["put"].append(answers(200, x_amz_checksum_crc32c="AAAAAA=="))
    data_id = await begin(streamer, 0)
    await streamer.flush(data_id)
    assert len(service.uploads(data_id, 0)) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_respected(
    service: MemoryService, streamer: AsyncRHEEDStreamer, form: str
) -> None:
    """No attempt is made before Retry-After has passed, given in seconds or as a date."""
    # A date has whole seconds: at least one of the two seconds is left.
    retry_after = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    headers = {"Retry_After": retry_after, "Date": formatdate(time.time(), usegmt=True)}
    service.faults["put"].append(answers(503, **headers))
    data_id = await begin(streamer, 0)
    await assert_delivered(service, streamer, data_id, 1)
    asked = [one.received_s for one in service.requests if one.path.endswith("/upload_urls/")]
    assert asked[1] - asked[0] >= 1.0


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_pauses_uploads(
    service: MemoryService, streamer: AsyncRHEEDStreamer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """While the key is refused, no chunk is given up; all are delivered once the key works."""
    refused = answers(status, '{"detail": "no such key"}')
    service.fault_for = lambda attempt: refused if attempt.step == "url" else None
    data_id = await begin(streamer, *range(5))
    await until(lambda: len(service.attempts) > 6)
    stats = await stream_stats(streamer, data_id)
    assert (stats["chunks_pending"], stats["chunks_failed"]) == (5, 0)
    assert f"HTTP {status} (no such key)" in stats["standing_still"]
    service.fault_for = lambda attempt: None
    await assert_delivered(service, streamer, data_id, 5)
    assert caplog.text.count("is paused, nothing is lost") == 1
    assert KEY not in caplog.text


@pytest.mark.parametrize("kind", ["url", "put"])
@pytest.mark.parametrize("status", [400, 409, 413, 422, 501])
async def test_a_refused_chunk_affects_no_other(
    service: MemoryService, streamer: AsyncRHEEDStreamer, kind: str, status: int
) -> None:
    """Any other refusal is final for this chunk only, and is in the report."""
    no = answers(status, '{"detail": "not this one"}')
    service.fault_for = lambda attempt: no if (attempt.step, attempt.chunk_idx) == (kind, 1) else None
    data_id = await begin(streamer, 0, 1, 2)
    with pytest.warns(RuntimeWarning, match=r"1 missing chunk: 1 \(quarantined.*not this one"):
        report = await streamer.finalize(data_id)
    assert_sums(report)
    assert (report["chunks_uploaded"], report["chunks_failed"], report["drained"]) == (2, 1, True)
    assert [index for index, _ in report["lost"]] == [1]
    assert tries(service, kind, 1) == 1
    for k in (0, 2):
        np.testing.assert_array_equal(service.chunk(data_id, k), noise(k))


@pytest.mark.parametrize("status", [404, 410])
async def test_an_unknown_stream_is_one_error(
    service: MemoryService, streamer: AsyncRHEEDStreamer, status: int
) -> None:
    """A stream that the server does not have stops with one error, then its report; other streams continue."""
    other, data_id = await begin(streamer, 0), await begin(streamer)
    gone = answers(status)
    service.fault_for = lambda attempt: gone if (attempt.step, attempt.data_id) == ("url", data_id) else None
    for k in range(3):
        try:
            await streamer.push(data_id, k, noise(k))
        except StreamGoneError:
            break
    with pytest.raises(StreamGoneError, match=f"no longer has stream {data_id}"):
        await streamer.flush(data_id)
    with pytest.raises(StreamGoneError):
        await streamer.push(data_id, 9, noise(9))
    with pytest.warns(RuntimeWarning, match="missing chunk"):
        report = await streamer.finalize(data_id)
    assert_sums(report)
    assert (report["chunks_uploaded"], report["chunks_pending"], report["closed"]) == (0, 0, False)
    await assert_delivered(service, streamer, other, 1)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("kind", ["url", "put"])
async def test_redirects_are_never_followed(
    service: MemoryService, streamer: AsyncRHEEDStreamer, kind: str, status: int
) -> None:
    """The key and the frames follow no redirect; a redirect is a refusal whose error names its target."""
    async with MemoryService() as elsewhere:
        service.faults[kind].append(answers(status, Location=elsewhere.url + "/trap"))
        data_id = await begin(streamer, 0)
        with pytest.warns(RuntimeWarning, match=f"redirects to {elsewhere.url.rpartition(':')[0]}"):
            await streamer.finalize(data_id)
        assert elsewhere.requests == []


async def test_the_key_never_goes_to_the_upload_url(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """The server of the signed URL receives the bytes and nothing that identifies the caller."""
    service.faults["put"].append(answers(403))
    await assert_delivered(service, streamer, await begin(streamer, 0, 1), 2)
    puts = [one for one in service.requests if one.method == "PUT"]
    assert len(puts) == 3
    for one in puts:
        assert KEY not in f"{one.headers}{one.query}{one.path}"
        assert not {"x-api-key", "authorization", "cookie"} & set(one.headers)


async def test_neither_key_nor_signature_is_revealed(
    service: MemoryService, streamer: AsyncRHEEDStreamer, caplog: pytest.LogCaptureFixture
) -> None:
    """If a server repeats the key and the URL, they still appear in no log, report or error."""
    caplog.set_level("DEBUG")

    def echo(request: web.Request) -> web.Response:
        return web.Response(status=422, text=f"{request.url} {KEY}")

    service.faults["put"].append(echo)
    service.faults["url"].append(echo)
    data_id = await begin(streamer, 0, 1)
    with pytest.warns(RuntimeWarning) as warned:
        report = await streamer.finalize(data_id)
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("atomstream")]
    texts = f"{report} {ours} {[str(one.message) for one in warned]}"
    assert KEY not in texts
    assert "sig=once" not in texts


async def test_a_stream_that_fails_does_not_hold_up_another(service: MemoryService) -> None:
    """While the chunks of one stream fail repeatedly, another stream is delivered, even with one upload slot."""
    async with make_async(service.url, KEY, upload_concurrency=1) as streamer:
        stuck = await begin(streamer)
        busy = answers(503)
        service.fault_for = lambda attempt: busy if attempt.data_id == stuck else None
        for k in range(8):
            await streamer.push(stuck, k, noise(k))
        await until(lambda: len(service.attempts) > 3)
        await assert_delivered(service, streamer, await begin(streamer, *range(8)), 8)
        assert (await stream_stats(streamer, stuck))["chunks_pending"] == 8
        service.fault_for = lambda attempt: None
        await assert_delivered(service, streamer, stuck, 8)


async def test_chunks_are_sent_in_order(service: MemoryService) -> None:
    """Of the waiting chunks, the one with the lowest index is sent first, in whatever order they were pushed."""
    async with make_async(service.url, KEY, upload_concurrency=1) as streamer:
        go_on = asyncio.Event()
        service.faults["url"].append(held(go_on))
        data_id = await begin(streamer)
        for k in (9, 6, 2, 5, 1, 0, 3, 4):
            await streamer.push(data_id, k, noise(k))
            while (await streamer.stats())["frames_encoded"] < CHUNK:  # chunk 9 is the only one being sent
                await asyncio.sleep(0.005)
        while (await streamer.stats())["upload_backlog"] < 8:
            await asyncio.sleep(0.005)
        go_on.set()
        await streamer.flush(data_id)
    assert [index for kind, _, index in service.attempts if kind == "url"][:8] == [9, 0, 1, 2, 3, 4, 5, 6]


async def test_a_wrong_stream_is_named(streamer: AsyncRHEEDStreamer) -> None:
    """A data_id that was never initialized is a typed error, before and after the first stream."""
    with pytest.raises(UnknownStreamError):
        await streamer.push("nobody", 0, noise(0))
    await begin(streamer)
    for verb in (streamer.finalize, streamer.flush):
        with pytest.raises(UnknownStreamError, match="'nobody'"):
            await verb("nobody")


async def test_an_unknown_sample_creates_nothing(
    service: MemoryService, streamer: AsyncRHEEDStreamer
) -> None:
    """If the sample does not exist, initialize fails before anything is created."""
    with pytest.raises(NotFoundError, match="Nothing was created"):
        await streamer.initialize(FPS, 0.0, CHUNK, physical_sample="a1b2c3d4-e5f6-7890-abcd-ef1234567890")
    assert not any(one.method == "POST" for one in service.requests)
