from __future__ import annotations

import numpy as np
import pytest

from atomstream.pipeline.rate_meter import ThroughputMeter
from atomstream.pipeline.upload import MemoryPayload, Upload
from atomstream.records import Chunk, FrameMeta, StreamSpec, Timestamp
from atomstream.shard import ShardEncoder
from tests.fake_clock import Clock


def encoded_upload(meter: ThroughputMeter) -> Upload:
    frames = np.random.default_rng(1).integers(0, 255, (8, 512, 512), dtype=np.uint8)
    shard = ShardEncoder().encode(Chunk("s", 0, frames, Timestamp(0.0), FrameMeta()))
    meter.encoded(shard)
    spec = StreamSpec("s", 8.0, 0.0, 8)
    return Upload(spec, shard.info, MemoryPayload(shard.pieces), on_sent=meter.sent)


async def test_a_chunk_being_sent_counts_by_its_bytes() -> None:
    """On a slow connection the rate is known before the first chunk has arrived."""
    clock = Clock()
    meter = ThroughputMeter(clock)
    upload = encoded_upload(meter)
    attempt = upload.open()
    clock.now = 4.0
    for _ in range(3):  # the third cut is asked for, so two of four are out, of four frames
        await anext(attempt)
    await attempt.aclose()
    rates = meter.rates()
    assert rates.frames_in_s == 2.0
    assert rates.frames_out_s == pytest.approx(1.0, rel=0.1)
    assert rates.bytes_out_s * 4.0 == pytest.approx(upload.sent)
    assert rates.backlog_grows


async def test_repeated_bytes_are_not_counted_twice() -> None:
    """A second attempt subtracts the bytes of the first one."""
    clock = Clock()
    meter = ThroughputMeter(clock)
    upload = encoded_upload(meter)
    for _ in range(2):
        clock.now += 4.0
        async for _piece in upload.open():
            pass
    assert upload.sent == upload.info.nbytes
    assert meter.rates().bytes_out_s * 8.0 == pytest.approx(upload.info.nbytes)
    assert meter.rates().frames_out_s * 8.0 == pytest.approx(8.0)


async def test_old_bytes_are_removed() -> None:
    """Rates are means of the last ten seconds only."""
    clock = Clock()
    meter = ThroughputMeter(clock)
    async for _piece in encoded_upload(meter).open():
        pass
    clock.now = 60.0
    assert meter.rates().bytes_out_s == meter.rates().bytes_in_s == 0.0
