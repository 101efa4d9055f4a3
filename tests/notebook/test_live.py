"""The live widget against a real server, by its traits: what the notebook shows and keeps."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atomstream import RHEEDStreamer, live
from atomstream.errors import ConfigError, NotFoundError, ServerBusyError
from atomstream.notebook.freshness import ENDED, STALE, Facts, state_of
from atomstream.notebook.trace import POINTS, Trace
from atomstream.notebook.widget import LiveWidget, received_column, received_picture
from atomstream.protocol import PICTURE_HEADER
from tests.live_helpers import FPS, growth
from tests.live_server import ThreadedServer

LIMIT_S = 60.0
CHUNK = 120
STARTED_MS = 1.7e12


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread()


@pytest.fixture
def streamer(server: ThreadedServer, tmp_path: Path) -> Iterator[RHEEDStreamer]:
    with RHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path, clock_sync=False) as made:
        yield made


def wait_for(widget: LiveWidget, holds: Callable[[], bool]) -> None:
    """Return when ``holds()``; it is looked at after each change of a trait."""
    changed = threading.Event()
    widget.observe(lambda _change: changed.set())
    while not holds():
        assert changed.wait(LIMIT_S), widget
        changed.clear()


def push(streamer: RHEEDStreamer, data_id: str, index: int) -> None:
    """Push one chunk with the time at which a camera had taken it: this program sends chunks faster than a camera."""
    first = index * CHUNK
    streamer.push(data_id, index, growth()[first : first + CHUNK], STARTED_MS + 1000.0 * first / FPS)


def times_and_values(widget: LiveWidget) -> tuple[np.ndarray, np.ndarray]:
    both = np.frombuffer(widget.trace, "<f4")
    return both[: len(both) // 2], both[len(both) // 2 :]


def test_it_follows_a_stream_to_its_end(server: ThreadedServer, streamer: RHEEDStreamer) -> None:
    """Picture, rate with its reason, trace and state follow the feed; the key is in nothing that a notebook saves."""
    data_id = streamer.initialize(FPS, 0.0, CHUNK, "<b>growth</b>")
    push(streamer, data_id, 0)
    with live(api_key=server.api_key, endpoint=server.url) as widget:
        assert (widget.data_id, widget.name) == (data_id, "<b>growth</b>")
        wait_for(widget, lambda: bool(widget.picture) and len(times_and_values(widget)[0]) == CHUNK)
        push(streamer, data_id, 1)
        streamer.finalize(data_id)
        wait_for(widget, lambda: widget.state == ENDED)
        assert widget.wait(LIMIT_S)
        assert not widget.following
        times, values = times_and_values(widget)
        assert len(times) == 2 * CHUNK
        assert (np.diff(times) > 0).all()
        assert np.isfinite(values).all()
        assert Image.open(io.BytesIO(widget.picture)).size == (320, 240)
        assert widget.picture_frame == 2 * CHUNK - 1
        assert (widget.rate is None) == bool(widget.why)
        saved = repr((widget.get_state(), widget._repr_mimebundle_(), widget))
        assert server.api_key not in saved
        assert widget.page == f"{server.url}/streams/{data_id}"
    with live(data_id, trace="saturated_fraction", api_key=server.api_key, endpoint=server.url) as again:
        wait_for(again, lambda: again.state == ENDED)
        assert (again.rate, again.sigma) == (widget.rate, widget.sigma)
        np.testing.assert_array_equal(times_and_values(again)[0], times)


@pytest.mark.filterwarnings("ignore:Stream .* ended with:RuntimeWarning")
def test_an_unreachable_server_is_shown_and_followed_again(
    server: ThreadedServer, streamer: RHEEDStreamer
) -> None:
    """Without an answer of the server the numbers are stale at once, with the reason. ``close`` ends the thread."""
    data_id = streamer.initialize(FPS, 0.0, CHUNK)
    push(streamer, data_id, 0)
    widget = live(data_id, api_key=server.api_key, endpoint=server.url, pictures_per_s=10.0)
    wait_for(widget, lambda: bool(widget.picture) and len(widget.trace) > 8)
    server.stop()
    wait_for(widget, lambda: widget.state == STALE and "No connection" in widget.why)
    server.start()
    wait_for(widget, lambda: "No connection" not in widget.why)
    push(streamer, data_id, 1)
    wait_for(widget, lambda: len(times_and_values(widget)[0]) == 2 * CHUNK)
    streamer.finalize(data_id)
    widget.close()
    widget.close()
    assert not widget.following


def test_errors_name_what_is_wrong(server: ThreadedServer) -> None:
    """No stream, a wrong id and wrong numbers are errors of the call, and leave nothing behind."""
    where: dict[str, Any] = {"api_key": server.api_key, "endpoint": server.url}
    with pytest.raises(NotFoundError, match="no stream yet"):
        live(**where)
    with pytest.raises(NotFoundError, match="no stream a1b2c3d4"):
        live("a1b2c3d4-e5f6-7890-abcd-ef1234567890", **where)
    with pytest.raises(ConfigError, match="window_s"):
        live(window_s=0.0, **where)
    with pytest.raises(ConfigError, match="pictures_per_s"):
        live(pictures_per_s=100.0, **where)


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (Facts(2.0, None, 1.0), "waiting", "No results yet"),
        (Facts(2.0, 2.9, 2.9), "fresh", ""),
        (Facts(2.0, 3.5, 3.5), "stale", "No new results for 4 s"),
        (Facts(0.1, 2.6, 2.6), "stale", "No new results for 3 s"),
        (Facts(0.1, 300.0, 0.1), "stale", "late. This number is 5 min old"),
        (Facts(2.0, 1.0, 1.0, why="too few oscillations"), "undetermined", "too few oscillations"),
        (Facts(2.0, 9000.0, 1.0, problem="refused."), "stale", "No connection to the server: refused. This"),
    ],
)
def test_the_state_of_a_number(facts: Facts, state: str, words: str) -> None:
    """A number is stale if it is older than the next one should be, if the server is unreachable, or if results are
    late.
    """
    found, why = state_of(facts)
    assert found == state
    assert words in why


def test_the_trace_is_short_and_has_each_frame_once() -> None:
    """Hours of frames are reduced to the chart's points; frames before the window, and repeated ones, are left out."""
    trace = Trace(10.0)
    frames = np.arange(5000)
    trace.add(frames, frames / 100.0, np.where(frames < 4500, 1.0, 3.0))
    trace.add(frames[-200:], frames[-200:] / 100.0, np.full(200, 100.0))
    both = np.frombuffer(trace.packed(), "<f4").reshape(2, -1)
    assert both.shape[1] <= POINTS
    assert both[0, 0] >= 39.9
    assert set(both[1].tolist()) <= {1.0, 2.0, 3.0}


def test_a_hostile_server_ends_the_widget_with_a_reason() -> None:
    """An invalid picture or table is an error of the server, not of numpy."""
    for body in (
        b"",
        b"x" * PICTURE_HEADER.size + b"1",
        PICTURE_HEADER.pack(0.0, 0, 3, 3, 3, 3, 255) + b"12",
    ):
        with pytest.raises(ServerBusyError, match="invalid picture"):
            received_picture(body)
    for reply in ({}, {"frame": b"123", "time_seconds": b"", "columns": {}}):
        with pytest.raises(ServerBusyError, match="invalid results"):
            received_column(reply, "x")
