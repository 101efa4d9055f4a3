"""``atomstream stream --camera``: from a camera to a stream, until Ctrl-C or a limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atomstream.cameras import CameraFeed, CameraFrame, CameraSettings, Grabber, Transforms, open_camera
from atomstream.cameras.stream_facts import recording_attributes, stream_rate
from atomstream.cli.console import console
from atomstream.cli.playback import (
    Outcome,
    Playback,
    closing_soon,
    delivery_rows,
    note_recording,
    table,
    verdict,
)
from atomstream.errors import CameraError
from atomstream.login import ServerLogin
from atomstream.streaming import RHEEDStreamer


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """The camera's part of the command's arguments; ``seconds`` and ``frames`` end the stream."""

    name: str
    settings: CameraSettings
    transforms: Transforms
    seconds: float | None = None
    frames: int | None = None


class CameraStream:
    """Streams one camera. ``run`` opens it first, so that nothing is created on the server if it is not there."""

    def __init__(self, options: CameraOptions) -> None:
        self._options = options
        self._grabber = Grabber(open_camera(options.name), options.settings, notify=console.write)
        self._feed = CameraFeed(
            self._grabber, options.transforms, max_frames=options.frames, max_seconds=options.seconds
        )

    def __enter__(self) -> CameraStream:
        self._grabber.open()
        self._feed.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.stop()
        self._grabber.close()

    def describe(self) -> str:
        """Wait for the first frame, and describe the frames that the stream will have."""
        console.write(f"{self._options.name} is open; waiting for its first frame")
        first = self._feed.first_frame().pixels
        info = self._grabber.info
        return (
            f"{self._options.name}: {info.model}, frames of {first.shape[0]}x{first.shape[1]} {first.dtype}"
        )

    def fps(self) -> float:
        """The frame rate for the stream in 1/s: what the camera states, if the measured one agrees with it."""
        given, stated = self._options.settings.fps, self._grabber.info.fps
        if stated is None and given is not None:
            return given
        measured = self._feed.measured_rate()
        rate = stream_rate(stated, given, measured)
        assert rate is not None
        if stated is None:
            console.write(
                f"{self._options.name} states no frame rate; {rate:g} frames per second were measured."
            )
        elif rate != stated:
            console.write(
                f"{self._options.name} states {stated:g} frames per second, but {rate:g} were measured (the exposure "
                f"or the connection may limit it). The stream is created with {rate:g}."
            )
        return rate

    def attributes(self) -> dict[str, Any]:
        """How the frames are recorded, for the stream's attributes."""
        return recording_attributes(self._options.name, self._grabber.info, self._options.transforms)

    def run(self, streamer: RHEEDStreamer, data_id: str, drain_timeout_s: float | None) -> Outcome:
        """Stream until the end, and finalize. The first Ctrl-C ends the stream, the second exits at once."""
        clock = streamer.clock_status()
        offset_ms = clock["offset_ms"] if clock else 0.0

        def push(frame: CameraFrame) -> None:
            time_ms = None if frame.time_ms_utc is None else frame.time_ms_utc + offset_ms
            try:
                streamer.push_frame(data_id, frame.pixels, time_ms, frame.frame_id)
            except TypeError as error:  # uint16 for a server that accepts 8 bits only
                raise CameraError(f"{error} Use --levels LOW HIGH.") from error

        self._feed.connect(push)
        playback = Playback(console, streamer, data_id, self._options.frames, drain_timeout_s)
        return playback.run(self._feed.progress(), int)

    def troubles(self) -> dict[str, int]:
        """What was counted besides frames, for the stream's attributes; only what is not 0."""
        counts = self._grabber.counts
        found = {
            "frames_missing": counts.missing,
            "frames_incomplete": counts.incomplete,
            "frames_late": counts.late,
            "camera_reconnects": counts.reconnects,
        }
        return {name: count for name, count in found.items() if count}

    def report(self, outcome: Outcome) -> str:
        """The report of the command."""
        counts = self._grabber.counts
        text = f"{counts.frames} complete frames, {counts.missing} missing, {counts.incomplete} incomplete"
        if counts.late:
            text += f", {counts.late} late"
        if counts.reconnects:
            text += f"; opened again {counts.reconnects} times"
        rows = [("Stream", outcome.data_id), ("Camera", text), *delivery_rows(outcome)]
        return f"{table(rows)}\n{verdict(outcome)}"


def stream_camera(
    options: CameraOptions,
    make: Callable[[RHEEDStreamer, float], str],
    login: ServerLogin,
    drain_timeout_s: float | None,
) -> tuple[Outcome, str]:
    """Stream one camera; returns the outcome and the report.

    ``make(streamer, fps)`` creates the stream with the command's other options and returns its data_id.
    """
    with (
        CameraStream(options) as stream,
        closing_soon(RHEEDStreamer(login.api_key, login.endpoint)) as streamer,
    ):
        description = stream.describe()
        fps = stream.fps()
        data_id = make(streamer, fps)
        console.write(f"{description} at {fps:g} fps\nstream {data_id} at {login.endpoint}")
        note_recording(streamer, data_id, stream.attributes())
        outcome = stream.run(streamer, data_id, drain_timeout_s)
        note_recording(streamer, data_id, stream.troubles())
        return outcome, stream.report(outcome)


def chunk_size_for(fps: float) -> int:
    """Frames in 2 s."""
    return max(1, math.ceil(2.0 * fps))
