"""A few bytes make neither large files nor long lists: what could grow has a limit, which the error names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomstream.arguments import MAX_ATTRIBUTES_BYTES, check_attributes
from atomstream.errors import ConfigError, ConflictError
from atomstream.server.archive import chunk_index
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.metadata import NamedId, StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.http.responses import HttpError
from atomstream.server.live.annotation_records import CalibrationRecord
from atomstream.server.live.worker import MAX_BATCH_FRAMES, AnalyzerSession
from atomstream.server.live.worker_messages import StreamSettings
from atomstream.server.routes.streams import MAX_TAGS, add_tags
from tests.live_server import Serve
from tests.server.archive.archive_helpers import commit, frames_of, new_archive
from tests.wire_client import WireClient


def test_single_frames_far_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of an array has the values of 16,384 frames: a chunk that would need one more file than allowed is
    refused, those in files that exist are stored, and more stored frames allow more files.
    """
    monkeypatch.setattr(chunk_index, "FREE_FILES", 3)
    archive = new_archive(tmp_path)
    size = COLUMN_CHUNK
    for index in (0, 7, 5):
        commit(archive, index, frames_of(index, 2), chunk_size=size)
    with pytest.raises(ConflictError, match=r"far from the others.*6 frames stored in 3 places.*chunk_size"):
        commit(archive, 9, frames_of(9, 2), chunk_size=size)
    assert not list(archive.incoming().parent.iterdir())
    commit(archive, 7, frames_of(7, 2), chunk_size=size)  # a repeat
    again = StreamArchive.open(archive.folder)
    with pytest.raises(ConflictError, match="far from the others"):
        commit(again, 9, frames_of(9, 2), chunk_size=size)
    assert list(again.stored()) == [0, 5, 7]
    monkeypatch.setattr(chunk_index, "FRAMES_PER_FILE", 6)
    commit(again, 9, frames_of(9, 2), chunk_size=size)


def test_attributes_are_bounded_together() -> None:
    """The documents of the archive contain them: 64 lists of 1000 texts would be 64 MB in each."""
    text = "a" * 1000
    check_attributes({"a": [text] * 60})
    with pytest.raises(ConfigError, match=f"at most {MAX_ATTRIBUTES_BYTES} are allowed"):
        check_attributes({"a": [text] * 60, "b": [text] * 10})
    with pytest.raises(ConfigError, match=f"at most {MAX_ATTRIBUTES_BYTES}"):
        check_attributes({"a": ["\N{SNOWMAN}" * 1000] * 30})


def test_tags_of_a_stream_are_bounded() -> None:
    """The number of tags is limited, because each change of the stream writes all of them; repeats are accepted."""
    tags = [NamedId(id=str(k), name=f"tag {k}") for k in range(MAX_TAGS + 1)]
    about = StreamMetadata(data_id="one", name="a", fps=1.0, rotations_per_min=0.0, made="", last_updated="")
    full = add_tags(about, tags[:-1])
    assert add_tags(full, tags[:5]).tags == full.tags
    with pytest.raises(HttpError, match=f"at most {MAX_TAGS} are allowed"):
        add_tags(full, tags[-1:])


def test_a_batch_has_not_more_frames_the_faster_the_camera() -> None:
    """Readers of a feed hold a whole message: at 100,000 frames/s half a second of frames would be 10 MB."""
    session = AnalyzerSession(StreamSettings(100_000.0, 0.0, 2500, CalibrationRecord()))
    frames = np.full((2500, 4, 4), 9, np.uint8)
    batches = list(session.feed(0, frames, np.arange(2500) / 1e5))
    assert max(batch.count for batch in batches) <= MAX_BATCH_FRAMES
    assert len(batches) == 3


@pytest.mark.parametrize(
    "body",
    [{"marks": ["a" + " " * 5000 + ">1 -> b"]}, {"synth_source_id": "x" * 300}, {"stream_name": "x" * 300}],
)
async def test_texts_of_signals_are_bounded(serve: Serve, body: dict[str, object]) -> None:
    """The descriptions of all streams of signals are in the server's memory."""
    async with WireClient(await serve()) as client:
        assert (await client.ask("POST", "/tool-state/stream/initialize", body))[0] == 400
