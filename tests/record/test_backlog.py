"""Frames that a recording has not read from the dashcam yet: kept, counted once if they are lost, and never waited for
without end."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atomstream.cameras import CameraFrame
from atomstream.errors import StreamError
from atomstream.login import ServerLogin
from atomstream.record.capture import Capture
from atomstream.record.recorder import Recorder
from atomstream.record.recording import RecordingRequest
from atomstream.record.snapshot import snapshot
from atomstream.record.states import RecorderState
from atomstream.streaming import AsyncRHEEDStreamer
from tests.live_server import Serve
from tests.record.manual_camera import ManualCamera, delivered, recording_of, stopped, taken, until

SEGMENT = 20
"""Frames of a segment of the dashcam at the camera's rate."""


class CameraWithoutCounter(ManualCamera):
    """A camera whose frames have no number, like those of a screen."""

    def grab(self, timeout_s: float) -> CameraFrame | None:
        """The next frame."""
        frame = super().grab(timeout_s)
        return None if frame is None else replace(frame, frame_id=None)


def hold(patch: pytest.MonkeyPatch, method: str) -> asyncio.Event:
    """Let a method of the streamer wait until the event is set."""
    go, real = asyncio.Event(), getattr(AsyncRHEEDStreamer, method)

    async def wait(*arguments: Any, **options: Any) -> Any:
        await go.wait()
        return await real(*arguments, **options)

    patch.setattr(AsyncRHEEDStreamer, method, wait)
    return go


def capture_of(recorder: Recorder) -> Capture:
    """The capture of a recorder whose camera is open."""
    assert recorder.capture is not None
    return recorder.capture


def delete(recorder: Recorder, *segments: int) -> None:
    """Delete these segments of the dashcam, as its limits of disk and memory would."""
    dashcam = capture_of(recorder).dashcam
    with dashcam._changed:
        held = list(dashcam._segments)
        assert [len(one._stamps) for one in held[: max(segments) + 1]] == [SEGMENT] * (max(segments) + 1)
        for number in segments:
            dashcam._delete(held[number])


@pytest.mark.parametrize(
    ("where", "has_counter"),
    [("begin", True), ("middle", True), ("middle", False), ("behind the end", False)],
)
async def test_frames_that_were_deleted_unread_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, has_counter: bool
) -> None:
    """Frames deleted before they were read are counted as lost once, anywhere in the recording, with a camera counter
    or without; frames of a pause do not count.
    """
    camera = ManualCamera() if has_counter else CameraWithoutCounter()
    go = hold(monkeypatch, "initialize" if where == "begin" else "push_frame")
    async with recording_of(tmp_path, camera, monkeypatch) as recorder:
        await taken(recorder, camera, *range(SEGMENT))
        await recorder.record(RecordingRequest("slow", before_s=600.0))
        recording = recorder.recording
        assert recording is not None
        if where != "begin":
            await until(recorder, lambda: recording.data_id)
        await taken(recorder, camera, *range(SEGMENT, 3 * SEGMENT))
        await recorder.pause()
        await taken(recorder, camera, *range(3 * SEGMENT, 5 * SEGMENT))
        delete(recorder, *{"begin": [0], "middle": [1], "behind the end": [2, 3]}[where])
        go.set()
        await stopped(recorder)
        assert (recording.frames, recording.lost) == (2 * SEGMENT, SEGMENT)


async def test_a_pause_deletes_no_frame_that_is_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of before a pause are read although newer ones are to follow; those of the pause are not kept."""
    camera, go = ManualCamera(), hold(monkeypatch, "push_frame")
    async with recording_of(tmp_path, camera, monkeypatch, before_s=1.0) as recorder:
        dashcam = capture_of(recorder).dashcam
        await recorder.record(RecordingRequest("backlog"))
        recording = recorder.recording
        assert recording is not None
        await taken(recorder, camera, *range(100))
        await recorder.pause()
        await recorder.go_on()
        await taken(recorder, camera, *range(100, 200))
        assert recording.waiting_frames == 200
        go.set()
        await until(recorder, lambda: recording.waiting_frames == 0)
        await recorder.pause()
        await until(recorder, lambda: dashcam._needed == -1)
        await taken(recorder, camera, *range(200, 300))
        assert dashcam.number_at(0.0) > 250
        await stopped(recorder)
        assert (recording.frames, recording.lost) == (200, 0)


async def test_the_end_is_not_waited_for_without_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory and disk full the recorder ends nevertheless, and states how many frames are lost."""
    camera, messages = ManualCamera(), list[str]()
    monkeypatch.setattr("atomstream.record.recorder.END_S", 0.05)
    monkeypatch.setattr("atomstream.record.streamers.CLOSE_S", 0.1)
    monkeypatch.setattr("atomstream.record.disk_space.DiskSpace.is_short", lambda *_: False)
    limits: dict[str, Any] = {
        "spool_max_bytes": 2000,
        "save_s": 0.3,
        "streamer_options": {"buffer_bytes": 100_000},
    }
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # of the streamer, which is closed with frames in memory
        async with recording_of(tmp_path, camera, monkeypatch, None, messages, **limits) as recorder:
            await recorder.record(RecordingRequest("full"))
            await taken(recorder, camera, *range(400))
            recording = recorder.recording
            assert recording is not None
            await until(recorder, lambda: recording.saved_frames)
            async with asyncio.timeout(60.0):
                await recorder.close()
            assert recording.frames < 400
            saved = recording.saved_frames
            assert recorder.entry_of(recording).ended_ms == camera.time_ms(saved - 1)
    assert any(f"{400 - saved} frames at the end of 'full' could not be saved" in text for text in messages)


async def test_an_error_in_a_recording(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was pushed before it is sent at once, and the page states the error and how much is saved."""
    server, camera, messages = await serve(), ManualCamera(), list[str]()
    push, count = AsyncRHEEDStreamer.push_frame, 0

    async def fail_later(*arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count > 50:
            raise StreamError("no such stream")
        await push(*arguments, **options)

    monkeypatch.setattr(AsyncRHEEDStreamer, "push_frame", fail_later)
    login = ServerLogin(server.url, server.api_key)
    async with recording_of(tmp_path, camera, monkeypatch, login, messages) as recorder:
        await recorder.record(RecordingRequest("failing"))
        await taken(recorder, camera, *range(60))
        await until(recorder, lambda: recorder.state is RecorderState.IDLE)
        await delivered(recorder)
        values = await snapshot(recorder)
    assert values["recording"]["outcome"] == (
        "failing was ended by an error: no such stream. 50 of its 50 frames are saved."
    )
    assert recorder.entries[0].state == "sent"
