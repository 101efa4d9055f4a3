"""A spool with hostile records and entries, delivered by a real streamer to a real server: only they are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atomstream.records import StreamSpec
from atomstream.spool import StreamSpool
from atomstream.spool.paths import JOURNAL, record_name
from tests.live_server import Serve
from tests.spool.spool_helpers import new_spool, shard
from tests.spool.test_hostile_spool import HUGE, frame, reheaded
from tests.streaming.stream_helpers import begin, make_async
from tests.wire_client import WireClient

HOSTILE: dict[str, Any] = {
    "start is NaN": {"stamp": (float("nan"), None, None)},
    "start is text": {"stamp": ("soon", 0.0, 0.0)},
    "start is huge": {"stamp": (1e300, 0.0, 0.0)},
    "offset is huge": {"stamp": (1e12, 9e14, 9e14)},
    "other pixels": {"dtype": "uint16"},
    "other shape": {"dims": (4, 6, 8)},
    "more frames": {"dims": (5, 6, 7)},
    "a wrong checksum": {"crc": 1},
    "a huge index": {"k": HUGE},
}


def spooled(root: Path, url: str, data_id: str, *, announced: bool) -> StreamSpool:
    """A stream in the spool with a record for each hostile value, and a good one with the highest index."""
    spec = StreamSpec(data_id, fps=120.0, rpm=0.0, chunk_size=4, name="hostile", announced=announced)
    stream = new_spool(root).create_stream(url, spec)
    for index in range(len(HOSTILE) + 1):
        stream.put(shard(index, data_id=data_id))
    stream.close()
    for index, changes in enumerate(HOSTILE.values()):
        path = stream.folder / record_name(index)
        path.write_bytes(reheaded(path.read_bytes(), lambda fields, changes=changes: fields.update(changes)))
    odd = ["text", None, float("nan"), HUGE, -5]
    with (stream.folder / JOURNAL).open("ab") as journal:
        journal.write(b"".join(frame([kind, value, b"", value]) for kind in range(10) for value in odd))
    return stream


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
async def test_only_the_hostile_records_are_lost(serve: Serve, tmp_path: Path, announced: bool) -> None:
    """The good record is stored, each hostile one is quarantined, and the streamer goes on with other streams."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
    stream = spooled(tmp_path / "spool", server.url, data_id, announced=announced)
    async with make_async(server.url, server.api_key, spool_dir=tmp_path / "spool") as streamer:
        assert await streamer.resume(data_id) >= len(HOSTILE)
        report = await streamer.finalize(data_id)
        assert report["chunks_uploaded"] >= 1
        assert report["chunks_pending"] == 0
        assert len(HOSTILE) not in [index for index, _ in report["lost"]]
        other = await begin(streamer, 0)
        assert (await streamer.finalize(other))["chunks_uploaded"] == 1
    async with WireClient(server) as client:
        status, reply = await client.ask("GET", f"/rheed/stream/{data_id}/chunks")
    assert status == 200
    assert str(len(HOSTILE)) in reply["stored"]
    assert stream.folder.exists()  # chunks that could not be sent are kept on disk
