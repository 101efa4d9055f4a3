"""stats(), the clock, capture times in the archive, and warnings at the caller's line (P6)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from atomstream import RHEEDStreamer
from tests.live_server import ThreadedServer
from tests.streaming.stream_helpers import CHUNK, FPS, noise

START_MS = 1_735_689_600_000.0


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread()


@pytest.fixture
def streamer(server: ThreadedServer) -> Iterator[RHEEDStreamer]:
    with RHEEDStreamer(server.api_key, server.url, spool_min_free_bytes=0) as made:
        yield made


def begin(streamer: RHEEDStreamer) -> str:
    return streamer.initialize(fps=FPS, rotations_per_min=0.0, chunk_size=CHUNK)


def test_the_warning_about_losses_names_the_callers_line(streamer: RHEEDStreamer) -> None:
    """The one RuntimeWarning of finalize points to the script, not into the library."""
    data_id = begin(streamer)
    streamer.push(data_id, 1, noise(1))
    with pytest.warns(RuntimeWarning, match="0 \\(never pushed\\)") as warned:
        streamer.finalize(data_id)
    assert [one.filename for one in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        streamer.finalize(data_id)


def test_the_warning_about_short_chunks_names_the_callers_line(streamer: RHEEDStreamer) -> None:
    """The warning of a short chunk points to the script, not into the library."""
    with pytest.warns(UserWarning, match="chunk_size=4 is 0.4 s") as warned:
        streamer.initialize(10.0, 0.0, CHUNK)
    assert [one.filename for one in warned] == [__file__]


@pytest.mark.parametrize(
    "push",
    [
        lambda streamer, data_id, k: streamer.push(data_id, k, noise(k), START_MS / 1000.0),
        lambda streamer, data_id, k: streamer.push_frame(data_id, noise(k)[0], START_MS / 1000.0 + k),
    ],
)
def test_seconds_in_place_of_milliseconds_are_noticed(
    streamer: RHEEDStreamer, push: Callable[[RHEEDStreamer, str, int], None]
) -> None:
    """The first capture time before 1990 gives one warning at the caller's line; a right one gives none (P6)."""
    data_id = begin(streamer)
    with pytest.warns(UserWarning, match=r"is 1970-01-21 .* Is it in seconds\?") as warned:
        push(streamer, data_id, 0)
    assert [one.filename for one in warned] == [__file__]
    push(streamer, data_id, 1)
    streamer.push(begin(streamer), 0, noise(0), frame_times_ms=[START_MS] * CHUNK)


def test_stats_count_chunks_frames_and_memory(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """stats() has the counts, the watermark, the gathered frames and the memory in use."""
    assert streamer.stats()["streams"] == {}
    data_id = begin(streamer)
    streamer.push(data_id, 0, noise(0))
    streamer.push(data_id, 2, noise(2))
    streamer.flush(data_id)
    streamer.push_frame(data_id, noise(3)[0])
    stats = streamer.stats()
    assert (stats["frames_encoded"], stats["frames_stored"]) == (2 * CHUNK, 2 * CHUNK)
    assert stats["raw_bytes_encoded"] == 2 * noise(0).nbytes
    assert stats["bytes_stored"] == stats["bytes_encoded"] > 0
    assert 0 < stats["buffer_bytes_used"] < stats["buffer_bytes_limit"]
    mine = stats["streams"][data_id]
    assert (mine["chunks_accepted"], mine["chunks_stored"], mine["watermark"]) == (2, 2, 0)
    assert (mine["next_index"], mine["frames_gathering"], mine["finalized"]) == (3, 1, False)
    with pytest.warns(RuntimeWarning, match="never pushed"):
        streamer.finalize(data_id)
    assert streamer.stats()["streams"][data_id]["finalized"]
    assert streamer.stats()["buffer_bytes_used"] == 0


def test_the_clock_is_measured(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """clock_status() returns offset and uncertainty in ms; on one computer they are small."""
    assert streamer.clock_status() is None
    begin(streamer)
    status = streamer.clock_status()
    assert status is not None
    assert set(status) == {"offset_ms", "uncertainty_ms", "measured_at_unix_ms"}
    assert abs(status["offset_ms"]) <= status["uncertainty_ms"] + 20.0
    assert abs(status["measured_at_unix_ms"] - time.time() * 1e3) < 60_000


def test_taken_stamps_are_host_time_plus_offset(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """A chunk without a time gets the present time of the server; offset and uncertainty are recorded too (P6)."""
    data_id = begin(streamer)
    before_ms = time.time() * 1e3
    streamer.push(data_id, 0, noise(0))
    after_ms = time.time() * 1e3
    streamer.push(data_id, 1, noise(1), START_MS)
    streamer.finalize(data_id)
    taken, given = (server.archive(data_id).stamps(k) for k in range(2))
    duration_ms = 1000.0 * CHUNK / FPS
    assert taken.clock_offset_ms is not None
    host_start_ms = taken.start_unix_ms - taken.clock_offset_ms
    assert before_ms - 2 <= host_start_ms + duration_ms <= after_ms + 2
    assert (given.start_unix_ms, given.clock_offset_ms) == (START_MS, None)


def test_per_frame_times_reach_the_archive(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """frame_times_ms, frame_ids and angles_deg are stored; the first time is the capture time of the chunk."""
    data_id = begin(streamer)
    times = [START_MS + 100.0 * k for k in range(CHUNK)]
    meta = {
        "frame_times_ms": np.array(times),
        "frame_ids": range(7, 11),
        "angles_deg": [0.0, 90.0, 180.0, 270.0],
    }
    streamer.push(data_id, 0, noise(0), **meta)  # type: ignore[arg-type]
    streamer.finalize(data_id)
    stamp = server.archive(data_id).stamps(0)
    assert stamp.start_unix_ms == START_MS
    assert stamp.meta.times_ms == tuple(times)
    assert (stamp.meta.ids, stamp.meta.angles_deg) == ((7, 8, 9, 10), (0.0, 90.0, 180.0, 270.0))
