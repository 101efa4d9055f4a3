"""Removal of old chunks from the spool, in the background of a session."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atomstream.pipeline.pipeline import Pipeline
from atomstream.streaming.background import expire_old_chunks
from tests.pipeline.transports import FakeTransport, settings
from tests.spool.spool_helpers import ENDPOINT, new_spool, shard, spec


async def test_a_stream_that_ends_meanwhile_does_not_end_it(tmp_path: Path) -> None:
    """The folder of one stream is closed after the task chose it: chunks of the next one are removed all the same."""
    pipeline = Pipeline(settings(), FakeTransport())
    spool = new_spool(tmp_path)
    ended, kept = (spool.create_stream(ENDPOINT, spec(name)) for name in ("ended", "kept"))
    for folder, name in ((ended, "ended"), (kept, "kept")):
        folder.put(shard(0, data_id=name))
    ended.close()
    pipeline.open(ended.manifest.spec, ended)
    stream = pipeline.open(kept.manifest.spec, kept)
    stream.ledger.restore({0: "pending"}, {}, {})
    removal = asyncio.create_task(expire_old_chunks(pipeline, 0.0))
    try:
        async with asyncio.timeout(60):
            await stream.ledger.changed.wait_for(lambda: stream.ledger.pending == 0 or removal.done())
        assert not removal.done()
        assert kept.pending() == []
    finally:
        removal.cancel()
        await asyncio.wait([removal])
        await pipeline.close()
