"""The live widget: its state as traits, a thread that follows the server's feed, and a small script for the browser."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import io
import math
import os
import struct
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, Self

import anywidget
import numpy as np
import numpy.typing as npt
import traitlets
from PIL import Image

from atomstream.client.async_client import AsyncClient
from atomstream.client.stream_entry import StreamEntry
from atomstream.errors import (
    AtomstreamError,
    ClosedError,
    ConfigError,
    NotFoundError,
    ServerBusyError,
    ServiceError,
)
from atomstream.notebook import freshness
from atomstream.notebook.trace import Trace
from atomstream.protocol import PICTURE_HEADER
from atomstream.results import (
    F64,
    TIME,
    Measurement,
    measurement_from,
    received_map,
    undetermined,
    unit_of,
    unpacked,
)
from atomstream.streaming.portal import wait_interruptibly
from atomstream.streaming.result_batch import ResultBatch
from atomstream.streaming.subscription import ResultSubscription
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream")

RATE: Final = "growth_rate_ml_s"
BEAT_S: Final = 1.0
"""Interval, in s, of heartbeat messages to the browser: without them it shows that the kernel does not answer."""
JPEG_QUALITY: Final = 90
HERE: Final = Path(__file__).parent
RUNNING: Final = ("waiting", "running")
MAX_ROWS: Final = 1 << 16


class LiveWidget(anywidget.AnyWidget):
    """Follows one stream of a server; :func:`atomstream.live` makes it. Use it as the last line of a cell.

    All traits but ``data_id`` change by themselves. ``state`` is that of the newest growth rate: ``waiting`` (no
    results yet), ``fresh``, ``undetermined``, ``stale`` (older than the next result should be), ``ended`` (the stream
    has ended; the number is final), ``failed`` or ``closed``. ``why`` is the reason.
    """

    _esm = (HERE / "widget.js").read_text(encoding="utf-8")
    _css = (HERE / "widget.css").read_text(encoding="utf-8")

    data_id = traitlets.Unicode().tag(sync=True)
    name = traitlets.Unicode().tag(sync=True)
    page = traitlets.Unicode(help="Address of the stream's page, without a key.").tag(sync=True)
    state = traitlets.Unicode(freshness.WAITING).tag(sync=True)
    why = traitlets.Unicode().tag(sync=True)
    rate = traitlets.Float(None, allow_none=True, help="Growth rate in `unit`; None: undetermined.").tag(
        sync=True
    )
    sigma = traitlets.Float(None, allow_none=True, help="Standard uncertainty of `rate`.").tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode(help="A caveat that belongs to the rate.").tag(sync=True)
    age_s = traitlets.Float(None, allow_none=True, help="Age of the newest frame with results.").tag(
        sync=True
    )
    picture = traitlets.Bytes(help="The newest picture as JPEG, at most 640 px wide.").tag(sync=True)
    picture_frame = traitlets.Int(-1).tag(sync=True)
    picture_s = traitlets.Float(None, allow_none=True).tag(sync=True)
    trace_name = traitlets.Unicode().tag(sync=True)
    trace_unit = traitlets.Unicode().tag(sync=True)
    trace = traitlets.Bytes(help="float32: times in s, then as many values.").tag(sync=True)
    beat = traitlets.Int().tag(sync=True)

    @classmethod
    def follow(
        cls,
        data_id: str | None,
        *,
        trace: str,
        window_s: float,
        pictures_per_s: float,
        api_key: str | None,
        endpoint: str | None,
    ) -> Self:
        """See :func:`atomstream.live`."""
        if not 1.0 <= window_s <= 3600.0:
            raise ConfigError(f"window_s={window_s!r} is not from 1 to 3600.")
        if not 0.1 <= pictures_per_s <= 10.0:
            raise ConfigError(f"pictures_per_s={pictures_per_s!r} is not from 0.1 to 10.")
        client = AsyncClient(api_key, endpoint)
        made = cls(trace_name=trace, trace_unit=unit_of(trace))
        try:
            made._start(_Follower(made, client, window_s, 1.0 / pictures_per_s), data_id)
        except BaseException:
            made.close()
            raise
        return made

    def _start(self, follower: _Follower, data_id: str | None) -> None:
        self._follower = follower
        wait_interruptibly(follower.start(data_id))
        _open_widgets.add(self)

    @property
    def following(self) -> bool:
        """True while the widget reads from the server."""
        follower = getattr(self, "_follower", None)
        return follower is not None and follower.running

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the widget reads no more from the server, as after the stream's end; False after ``timeout_s``."""
        follower = getattr(self, "_follower", None)
        return follower is None or follower.wait(timeout_s)

    def close(self) -> None:
        """Stop following and remove the widget from the notebook. Further calls have no effect."""
        _open_widgets.discard(self)
        follower = getattr(self, "_follower", None)
        if follower is not None:
            follower.stop()
        if self.comm is not None and self.state != freshness.ENDED:
            self.state, self.why = freshness.CLOSED, ""
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        shown = Measurement(self.rate, self.sigma, self.unit, self.why, self.note)
        return f"<LiveWidget {self.name!r} {self.data_id}, {self.state}: {shown}>"


class _Follower:
    """Reads one stream in a separate thread, so that the widget goes on while a cell runs."""

    def __init__(self, widget: LiveWidget, client: AsyncClient, window_s: float, picture_s: float) -> None:
        self._widget = widget
        self._client = client
        self._window_s = window_s
        self._trace = Trace(window_s)
        self._picture_s = picture_s
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._data_id = ""
        self._origin_ms: float | None = None
        self._chunk_s = 0.0
        self._problem = ""
        self._age_at_arrival_s: float | None = None
        self._arrived_s = time.monotonic()
        self._rate = undetermined("No results yet.")

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, data_id: str | None) -> concurrent.futures.Future[None]:
        """Start the thread. The future is done when the stream is found; it has the error if it is not."""
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(data_id)), name="atomstream-live", daemon=True
        )
        self._thread.start()
        return self._ready

    def stop(self) -> None:
        """End the thread and wait for it; does nothing if it has ended."""
        self._stopped = True
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the thread is ending
                self._loop.call_soon_threadsafe(self._task.cancel)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for the end of the thread; False if it still runs."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running

    async def _main(self, data_id: str | None) -> None:
        async with self._client:
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.create_task(self._find_and_follow(data_id))
            if self._stopped:
                self._task.cancel()
            await asyncio.wait([self._task])  # stop() cancels this task only: the client is always closed

    async def _find_and_follow(self, data_id: str | None) -> None:
        try:
            facts = await self._find(data_id)
        except BaseException as error:
            stopped = ClosedError("The widget is closed.")
            self._ready.set_exception(error if isinstance(error, Exception) else stopped)
            return
        self._ready.set_result(None)
        try:
            await self._follow(facts)
        except asyncio.CancelledError:
            pass
        except AtomstreamError as error:
            self._end(freshness.FAILED, str(error))
        except Exception as error:
            log.exception("The live widget of stream %s has failed.", self._data_id)
            self._end(freshness.FAILED, repr(error))

    async def _find(self, data_id: str | None) -> dict[str, Any]:
        """Fill the widget with what the server has now; returns the status of the analysis."""
        if data_id is None:
            entries = [StreamEntry.of(one) for one in await self._client.api.reading.newest()]
        else:
            entries = await self._client.search(data_ids=[data_id])
        if not entries:
            which = "There is no stream yet" if data_id is None else f"There is no stream {data_id}"
            raise NotFoundError(f"{which} (or this API key may not see it).", status=404)
        entry = entries[0]
        self._data_id = entry.data_id
        facts = await self._client.analysis(self._data_id)
        self._describe(facts)
        name = self._widget.trace_name
        first = max(0, int(facts["frames_stored"]) - min(MAX_ROWS, int(self._window_s * facts["fps"]) + 1))
        columns = await self._client.api.reading.columns(self._data_id, first, [name])
        self._trace.add(*received_column(columns, name))
        rate = received_map(facts.get("values", {})).get(RATE)
        if rate is not None:
            self._rate = measurement_from(rate)
        if facts.get("newest_s") is not None and facts.get("newest_unix_ms") is not None:
            self._arrival(facts["newest_unix_ms"], facts["newest_s"])
        with self._widget.hold_sync():
            self._widget.data_id, self._widget.name = self._data_id, entry.name
            self._widget.page = f"{self._client.api.endpoint}/streams/{self._data_id}"
            self._widget.trace = self._trace.packed()
            self._show()
        return facts

    def _describe(self, facts: Mapping[str, Any]) -> None:
        self._chunk_s = (facts.get("chunk_size") or 0) / (facts.get("fps") or 1.0)
        self._origin_ms = facts.get("origin_unix_ms")

    async def _follow(self, facts: Mapping[str, Any]) -> None:
        if facts["status"] not in RUNNING:
            self._problem = await self._next_picture()
            state = freshness.ENDED if facts["status"] == "ended" else freshness.FAILED
            self._end(state, str(facts.get("why") or self._rate.why))
            return
        others = [asyncio.create_task(self._pictures()), asyncio.create_task(self._beats())]
        try:
            feed = ResultSubscription(self._client.api.results, self._data_id, int(facts["seq"]), True)
            async with aclosing(feed.batches()) as batches:
                async for batch in batches:
                    if self._origin_ms is None:  # the first results
                        self._describe(await self._client.analysis(self._data_id))
                    self._apply(batch)
        finally:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        await self._next_picture()
        self._end(freshness.ENDED, self._rate.why)

    def _apply(self, batch: ResultBatch) -> None:
        if batch.count:
            numbers = np.arange(batch.start, batch.start + batch.count)
            self._trace.add(numbers, batch.time_s, batch[self._widget.trace_name])
            if batch.made_unix_ms is not None:
                self._arrival(batch.made_unix_ms, float(batch.time_s[-1]))
        self._rate, self._problem = batch.value(RATE), ""
        with self._widget.hold_sync():
            self._widget.trace = self._trace.packed()
            self._show()

    def _arrival(self, made_unix_ms: float, newest_s: float) -> None:
        """Results arrived whose newest frame is of ``newest_s``. Both times are of the server's clock."""
        self._arrived_s = time.monotonic()
        origin = self._origin_ms
        if origin is not None:
            self._age_at_arrival_s = max(0.0, (made_unix_ms - origin) / 1000.0 - newest_s)
        elif self._age_at_arrival_s is None:
            self._age_at_arrival_s = 0.0

    def _show(self) -> None:
        """Set the traits of the rate and of its state."""
        silent_s = time.monotonic() - self._arrived_s
        age_s = None if self._age_at_arrival_s is None else self._age_at_arrival_s + silent_s
        facts = freshness.Facts(self._chunk_s, age_s, silent_s, self._problem, self._rate.why)
        widget = self._widget
        widget.state, widget.why = freshness.state_of(facts)
        widget.age_s, widget.rate, widget.sigma = age_s, self._rate.value, self._rate.sigma
        widget.unit, widget.note = self._rate.unit, self._rate.note

    def _end(self, state: str, why: str) -> None:
        with self._widget.hold_sync():
            self._show()
            self._widget.state, self._widget.why = state, why

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            with self._widget.hold_sync():
                self._widget.beat += 1
                self._show()

    async def _pictures(self) -> None:
        while True:
            problem = await self._next_picture()
            if problem != self._problem:
                self._problem = problem
                self._show()
            await asyncio.sleep(self._picture_s)

    async def _next_picture(self) -> str:
        """Show the newest picture; returns why the server does not answer ("": it does)."""
        try:
            frame, time_s, pixels = received_picture(await self._client.api.reading.picture(self._data_id))
        except NotFoundError:  # no frames yet
            return ""
        except ServiceError as error:
            return str(error)
        if frame != self._widget.picture_frame:
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
            with self._widget.hold_sync():
                self._widget.picture = file.getvalue()
                self._widget.picture_frame, self._widget.picture_s = frame, time_s
        return ""


def received_picture(body: bytes) -> tuple[int, float | None, npt.NDArray[np.uint8]]:
    """Number, time (s; None: not known) and pixels (h, w) of a received picture.

    Raises:
        ServerBusyError: it is not one.
    """
    try:
        time_s, frame, width, height, *_ = PICTURE_HEADER.unpack_from(body)
        pixels = np.frombuffer(body, np.uint8, offset=PICTURE_HEADER.size).reshape(height, width)
    except (struct.error, ValueError) as error:
        raise ServerBusyError(f"The server sent an invalid picture ({error}).") from None
    return frame, time_s if math.isfinite(time_s) else None, pixels


def received_column(reply: Mapping[str, Any], name: str) -> tuple[npt.NDArray[np.int64], F64, F64]:
    """Numbers, times (s) and values of the frames that have results in a reply of the server, (n,) each.

    Frames at the end without a value are left out: they may have no results yet, which come by the feed.

    Raises:
        ServerBusyError: the reply is invalid.
    """
    try:
        frames, times = np.frombuffer(reply["frame"], "<i8"), unpacked(TIME, reply[TIME])
        raw = reply["columns"].get(name)
        values = np.full(len(frames), np.nan) if raw is None else unpacked(name, raw)
        known = int(np.flatnonzero(np.isfinite(values)).max(initial=-1)) + 1
        return frames[:known], times[:known], values[:known]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerBusyError(f"The server sent invalid results ({error!r}).") from None


_open_widgets: weakref.WeakSet[LiveWidget] = weakref.WeakSet()
_PID: Final = os.getpid()


def _close_all() -> None:
    if os.getpid() == _PID:
        for widget in tuple(_open_widgets):
            widget.close()


atexit.register(_close_all)
