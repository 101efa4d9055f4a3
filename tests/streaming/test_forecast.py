"""The forecast of when memory or disk will be full, with what can be done (P8)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
import pytest

from atomstream import RHEEDStreamer
from atomstream.pipeline.rate_meter import Rates
from atomstream.streaming.statistics import FreeSpace, WarningTimes, forecast
from benchmarks.throttle import throttled
from tests.live_server import ThreadedServer

GB = 10**9


def test_the_forecast_of_a_slow_uplink_has_its_numbers() -> None:
    """The message has the rates, the growth, the time left, what happens then, and what would be fast enough."""
    message = forecast(Rates(120.0, 20e6, 38.0, 6e6), FreeSpace(GB, 151 * GB), "drop_oldest")
    assert (
        "carries 38 of 120 frames a second; the backlog grows 14.0 MB/s; the disk is full in 3.0 h" in message
    )
    assert "on_full='drop_oldest'" in message
    assert "at most 38 frames a second" in message
    assert "32 % of the pixels" in message


def test_without_a_disk_it_is_memory_that_fills() -> None:
    """Without a usable disk the time left is that of the memory; a dead connection is named."""
    message = forecast(Rates(120.0, 20e6, 0.0, 0.0), FreeSpace(GB, None))
    assert "memory is full in 50 s" in message
    assert "Check the server and the network connection" in message


def test_a_failure_is_the_cause_and_not_the_uplink() -> None:
    """While uploads fail, the message has the failure and no speed of the uplink, which is not known."""
    message = forecast(
        Rates(120.0, 20e6, 6.0, 1e6), FreeSpace(GB, 19 * GB), failure="The server is unreachable."
    )
    assert message.startswith(
        "The server is unreachable. The backlog grows 19.0 MB/s; the disk is full in 17 min."
    )
    assert "uplink" not in message
    assert "frames a second" not in message


def test_when_a_warning_is_due_and_ends() -> None:
    """A server that is unreachable is not a slow uplink, nor in the seconds after it; the end of a slow uplink shows
    once.
    """
    times, away = WarningTimes(), "The server is unreachable."
    assert not times.is_due(0.0, "", lags=False)
    assert times.is_due(2.0, away, lags=True)
    times.note_warning(2.0, away)
    assert not times.is_due(30.0, away, lags=True), "one warning in 30 s"
    assert not times.is_due(39.0, "", lags=True), "the rates still contain the failure"
    assert times.is_due(41.0, "", lags=True)
    assert not times.has_ended(lags=True)
    times.note_warning(41.0, "")
    assert times.has_ended(lags=False)
    assert not times.has_ended(lags=False)
    times.note_warning(80.0, "")
    times.is_due(82.0, away, lags=True)
    assert not times.has_ended(lags=False), "the uploads' own messages state the end of a failure"


@pytest.mark.parametrize("rates", [Rates(120.0, 20e6, 120.0, 20e6), Rates(0.0, 0.0, 0.0, 0.0)])
def test_a_fast_uplink_gives_no_forecast(rates: Rates) -> None:
    """There is no message if no backlog grows, or if it would take longer than a day."""
    assert forecast(rates, FreeSpace(GB, GB)) == ""
    assert forecast(Rates(120.0, 20e6, 60.0, 10e6), FreeSpace(0, 10**15)) == ""


class LogText(logging.Handler):
    """Keeps the text of all messages; ``written`` is set at the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()
        self.written.set()


@pytest.mark.slow
def test_a_slow_line_is_reported_while_streaming(serve_in_thread: Callable[..., ThreadedServer]) -> None:
    """Over a line that carries a part of the frames the user is warned within seconds, and all arrive later."""
    server, log = serve_in_thread(), LogText()
    frames = np.random.default_rng(0).integers(0, 255, (240, 40, 50), dtype=np.uint8)
    logger = logging.getLogger("atomstream.forecast")
    logger.addHandler(log)
    try:
        with (
            throttled(server.url, 20e6) as url,
            RHEEDStreamer(server.api_key, url, spool_min_free_bytes=0, spool_max_bytes=50 * GB) as streamer,
        ):
            data_id = streamer.initialize(fps=120.0, rotations_per_min=0.0, chunk_size=240)
            count = 0
            while not log.written.wait(0.1):
                streamer.push(data_id, count, frames)
                count += 1
                assert count < 400, "nothing was logged"
            report = streamer.finalize(data_id)
    finally:
        logger.removeHandler(log)
    assert "The uplink carries" in log.text
    assert report["chunks_uploaded"] == count
