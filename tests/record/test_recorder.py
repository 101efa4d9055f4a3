"""The recorder with a real server and a real spool: what is recorded, what is left out, and what is counted."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from atomstream.errors import CameraError, CameraLostError
from atomstream.login import NO_SERVER, ServerLogin
from atomstream.record.capture import CapturePlan
from atomstream.record.recorder import Recorder
from atomstream.record.recording import Recording, RecordingRequest
from atomstream.record.settings import RecorderSettings
from atomstream.record.snapshot import snapshot
from atomstream.record.states import NotPossibleError, RecorderState
from atomstream.record.streamers import Streamers
from atomstream.spool import Spool
from atomstream.streaming import AsyncRHEEDStreamer
from tests.live_server import LiveServer, Serve
from tests.record.manual_camera import ManualCamera, delivered, recording_of, stack, stopped, taken, until
from tests.wire_client import WireClient


def login_of(server: LiveServer) -> ServerLogin:
    """Address and key of a server."""
    return ServerLogin(server.url, server.api_key)


async def streams_of(server: LiveServer) -> list[str]:
    """The ids of a server's streams."""
    return sorted(path.name for path in (server.context.settings.streams_dir).iterdir())


def the(recorder: Recorder) -> Recording:
    """The recorder's recording."""
    assert recorder.recording is not None
    return recorder.recording


async def test_frames_before_during_and_after(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored are the frames from before the button on, without those of a pause and those after Stop; in order."""
    server, camera = await serve(), ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch, login_of(server)) as recorder:
        await taken(recorder, camera, *range(10))
        await recorder.mark("Ga open", time_ms=camera.time_ms(5))
        await recorder.record(RecordingRequest("growth 7", "GaN <1>", before_s=600.0))
        await taken(recorder, camera, *range(10, 30))
        await recorder.pause()
        await taken(recorder, camera, *range(30, 40))
        await recorder.go_on()
        await taken(recorder, camera, *range(40, 60))
        await stopped(recorder)
        await taken(recorder, camera, *range(60, 65))
        await delivered(recorder)
        recording = the(recorder)
        assert (recording.frames, recording.lost, recording.saved_frames) == (50, 0, 50)
        assert recording.seconds == pytest.approx(29 / 20 + 19 / 20)
        assert recording.saved_ms == camera.time_ms(59)
        assert recording.marks.unsent == []
        await recorder._poll()
        (entry,) = recorder.entries
        assert (entry.name, entry.sample, entry.frames, entry.state) == ("growth 7", "GaN <1>", 50, "sent")
    stored: Any = zarr.open_group(server.folder(recording.data_id) / "frames.zarr", mode="r")
    assert np.array_equal(stored["frames"][:], stack(*range(30), *range(40, 60)))


async def test_lost_frames_and_a_camera_that_comes_back(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that the camera's counter shows are counted as lost; the recording goes on after an unplugged camera."""
    server, camera, messages = await serve(), ManualCamera(), list[str]()
    monkeypatch.setattr("atomstream.cameras.grabber.RETRY_S", 0.01)
    async with recording_of(tmp_path, camera, monkeypatch, login_of(server), messages) as recorder:
        await recorder.record(RecordingRequest("gaps"))
        await taken(recorder, camera, 1, 2, 5, 6)
        camera.fail(CameraLostError("unplugged"))
        await until(recorder, lambda: camera.opened == 2)
        await taken(recorder, camera, 20, 21)
        assert recorder.state is RecorderState.RECORDING
        await stopped(recorder)
        recording = the(recorder)
        assert recording.frames == 6
        assert recording.lost == 2 + (20 - 6 - 1)
    assert any("is back" in text for text in messages)


async def test_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any login a recording is complete on the disk, with its marks, and nothing is sent anywhere."""
    camera = ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder:
        await taken(recorder, camera, 0, 1, 2)
        await recorder.record(RecordingRequest("offline", before_s=600.0))
        await recorder.mark("Ga open")
        await taken(recorder, camera, *range(3, 50))
        await stopped(recorder)
        recording = the(recorder)
        assert recording.saved_frames == recording.frames == 50
    (stream,) = Spool(tmp_path / "spool").status()["streams"]
    assert (stream["name"], stream["endpoint"], stream["chunks_pending"]) == (
        "offline",
        NO_SERVER.endpoint,
        2,
    )
    assert stream["finalizing"]
    manifest = next(iter(Spool(tmp_path / "spool").streams())).manifest
    assert manifest is not None
    assert manifest.late is not None
    assert [event["label"] for event in manifest.late.events] == ["Ga open"]


async def test_what_was_recorded_without_a_server_is_sent_after_a_login(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start with a login gives the recordings of before to that server: frames, name and marks."""
    camera, messages = ManualCamera(), list[str]()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder:
        await recorder.record(RecordingRequest("offline"))
        await until(recorder, lambda: the(recorder).data_id)
        await taken(recorder, camera, *range(50))
        await recorder.mark("Ga open")
        await stopped(recorder)
    server = await serve()
    settings = RecorderSettings(tmp_path / "spool", tmp_path / "state", login_of(server))
    later = Recorder(settings, messages.append)
    await later.start()
    spool = Spool(tmp_path / "spool")
    await until(later, lambda: not spool.streams())
    await later.close()
    (stream,) = await streams_of(server)
    stored: Any = zarr.open_group(server.folder(stream) / "frames.zarr", mode="r")
    assert np.array_equal(stored["frames"][:], stack(*range(50)))
    assert "The recording that was made without a server will be sent" in messages[0]


async def test_marks_while_the_server_is_unreachable(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark that the server could not take is kept on the disk, and the next start sends it once.

    Its time is that of the server's clock, like those of the frames and of the mark that was sent at once.
    """
    server, camera, ahead_ms = await serve(), ManualCamera(), 5000.0

    async def clock_status(_streamer: AsyncRHEEDStreamer) -> dict[str, float]:
        return {"offset_ms": ahead_ms}

    monkeypatch.setattr(AsyncRHEEDStreamer, "clock_status", clock_status)
    async with recording_of(tmp_path, camera, monkeypatch, login_of(server)) as recorder:
        await recorder.record(RecordingRequest("growth"))
        await until(recorder, lambda: the(recorder).data_id)
        await taken(recorder, camera, *range(50))
        await recorder.mark("Ga open", time_ms=camera.time_ms(20))
        await until(recorder, lambda: the(recorder).frames == 50 and not the(recorder).marks.unsent)
        await server.stop()
        await recorder.mark("Ga closed", time_ms=camera.time_ms(40))
        await stopped(recorder)
        data_id = the(recorder).data_id
        monkeypatch.setattr("atomstream.streaming.annotations.ATTEMPTS", 1)
    (entry,) = recorder.entries
    assert (entry.state, [one["label"] for one in entry.unsent_marks]) == ("saved", ["Ga closed"])
    await server.start()
    later = Recorder(RecorderSettings(tmp_path / "spool", tmp_path / "state", login_of(server)))
    await later.start()
    await until(later, lambda: later.entries[0].state == "sent" and not later.entries[0].unsent_marks)
    await later.close()
    async with WireClient(server) as wire:
        _, reply = await wire.ask("GET", f"/rheed/stream/{data_id}/events")
    made = [event for event in reply if event["by"] == "user"]
    assert [(event["label"], event["kind"]) for event in made] == [
        ("Ga open", "shutter"),
        ("Ga closed", "shutter"),
    ]
    times_ms = [camera.time_ms(20) + ahead_ms, camera.time_ms(40) + ahead_ms]
    assert [event["time_ms_utc"] for event in made] == pytest.approx(times_ms, abs=0.5, rel=0)


async def test_a_refused_key_holds_back_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server refuses the key, the growth is recorded on this computer, and a message states it."""
    server, camera, messages = await serve(), ManualCamera(), list[str]()
    wrong = ServerLogin(server.url, "atst_wrong")
    async with recording_of(tmp_path, camera, monkeypatch, wrong, messages) as recorder:
        await taken(recorder, camera, 0, 1, 2)
        await recorder.record(RecordingRequest("refused", before_s=600.0))
        await taken(recorder, camera, 3, 4)
        await stopped(recorder)
        assert the(recorder).saved_frames == 5
        assert recorder.entries[0].endpoint == NO_SERVER.endpoint
    assert any("kept on this computer only" in text and "key" in text for text in messages)


async def test_actions_that_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each action in the wrong state is refused with a sentence, and changes nothing."""
    camera = ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder:
        for action in (recorder.pause, recorder.go_on, recorder.stop):
            with pytest.raises(NotPossibleError, match="Nothing is being recorded"):
                await action()
        with pytest.raises(ValueError, match="empty"):
            await recorder.record(RecordingRequest("  "))
        with pytest.raises(ValueError, match="rotations_per_min"):
            await recorder.record(RecordingRequest("x", rpm=-1.0))
        await taken(recorder, camera, 0)
        await recorder.record(RecordingRequest("x"))
        for request in (RecordingRequest("y"), RecordingRequest("x")):
            with pytest.raises(NotPossibleError, match="stop it first"):
                await recorder.record(request)
        with pytest.raises(NotPossibleError, match="stop it first"):
            await recorder.open_source(CapturePlan("manual:1"))
        assert the(recorder).request.name == "x"


async def test_nothing_begins_while_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record is refused while the recorder is closed, also if it was asked for just before."""
    camera = ManualCamera()
    async with recording_of(tmp_path, camera, monkeypatch) as recorder:
        await taken(recorder, camera, 0)
        async with recorder._action:
            beginning = asyncio.create_task(recorder.record(RecordingRequest("too late", before_s=600.0)))
            closing = asyncio.create_task(recorder.close())
            await asyncio.sleep(0)
        with pytest.raises(NotPossibleError, match="is being closed"):
            await beginning
        await closing
        with pytest.raises(NotPossibleError, match="is being closed"):
            await recorder.mark("nobody would store this")
    assert recorder.recording is None


async def test_one_streamer_for_each_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two simultaneous requests get the same streamer; one that could not be opened is made again at the next
    request."""
    settings = RecorderSettings(tmp_path / "spool", tmp_path / "state")
    streamers = Streamers(settings)
    one, other = await asyncio.gather(streamers.main(), streamers.local())
    assert one is other
    await streamers.close()

    async def fail(_streamer: AsyncRHEEDStreamer) -> AsyncRHEEDStreamer:
        raise OSError("too many open files")

    streamers = Streamers(settings)
    with monkeypatch.context() as patch:
        patch.setattr(AsyncRHEEDStreamer, "__aenter__", fail)
        with pytest.raises(OSError, match="too many open files"):
            await streamers.main()
    again = await streamers.main()
    assert again._session is not None
    await streamers.close()


async def test_a_second_recorder_on_the_same_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second recorder is refused with the address of the first one's page; after its end it may open the camera."""
    camera = ManualCamera()
    page = "http://127.0.0.1:4711"
    second = Recorder(RecorderSettings(tmp_path / "other spool", tmp_path / "state"))
    async with recording_of(tmp_path, camera, monkeypatch, page=page):
        with pytest.raises(CameraError, match=rf"manual:0 is used by another .*{page}"):
            await second.open_source(CapturePlan("manual:0"))
    await second.open_source(CapturePlan("manual:0"))
    await second.close()


async def test_a_camera_without_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recording begins when the rate can be measured, with all frames; without any frame nothing is stored."""
    camera, messages = ManualCamera(fps=None), list[str]()
    async with recording_of(tmp_path, camera, monkeypatch, None, messages) as recorder:
        await recorder.record(RecordingRequest("empty"))
        await stopped(recorder)
        assert recorder.entries == []
        assert messages == ["Nothing was recorded: no frame came."]
        await recorder.record(RecordingRequest("slow"))
        await taken(recorder, camera, 0, 2)
        values = await snapshot(recorder)
        assert values["recording"]["waits_for_rate"]
        await taken(recorder, camera, 4, 6)
        await stopped(recorder)
        assert the(recorder).saved_frames == 4
        manifest = next(iter(Spool(tmp_path / "spool").streams())).manifest
        assert manifest is not None
        assert manifest.spec.fps == pytest.approx(20.0)


async def test_a_camera_that_fails_ends_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that fails ends the recording, which is saved up to its last frame; the camera can be opened again."""
    camera, messages = ManualCamera(), list[str]()
    async with recording_of(tmp_path, camera, monkeypatch, None, messages) as recorder:
        await taken(recorder, camera, 0)
        await recorder.record(RecordingRequest("x", before_s=600.0))
        await taken(recorder, camera, 1, 2)
        camera.fail(RuntimeError("driver: code 17"))
        await until(recorder, lambda: recorder.state is RecorderState.IDLE)
        assert the(recorder).saved_frames == 3
        with pytest.raises(NotPossibleError, match="No camera runs"):
            await recorder.record(RecordingRequest("y"))
        await recorder.open_source(CapturePlan("manual:0"))
        await taken(recorder, camera, 3)
        await recorder.record(RecordingRequest("y"))
    assert any("code 17" in text for text in messages)


async def test_a_full_disk_stops_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the room for recordings is nearly used up, the recording stops with a sentence; all of it is saved."""
    camera, messages = ManualCamera(), list[str]()
    async with recording_of(
        tmp_path, camera, monkeypatch, None, messages, spool_max_bytes=100_000
    ) as recorder:
        await taken(recorder, camera, 0)
        await recorder.record(RecordingRequest("full", before_s=600.0))
        await until(recorder, lambda: the(recorder).data_id)
        number = 1
        while recorder.state is RecorderState.RECORDING:
            await taken(recorder, camera, *range(number, number + 10))
            number += 10
            await until(recorder, lambda: the(recorder).waiting_frames == 0)
            await recorder._poll()
        await until(recorder, lambda: recorder.state is RecorderState.IDLE)
        recording = the(recorder)
        assert recording.saved_frames == recording.frames > 10
        assert recording.lost == 0
    assert any("the limit of the spool is reached" in text and "are saved" in text for text in messages)


async def test_a_disk_that_accepts_no_more_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk accepts no frames, a message states that they are only in memory, and at the end how many are
    lost.
    """
    camera, messages = ManualCamera(), list[str]()
    monkeypatch.setattr("atomstream.record.recording.SLOW_DISK_S", 0.05)
    monkeypatch.setattr("atomstream.record.streamers.CLOSE_S", 0.1)
    monkeypatch.setattr("atomstream.record.disk_space.DiskSpace.is_short", lambda *_: False)
    limits: dict[str, Any] = {"spool_max_bytes": 2000, "save_s": 0.5}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # that of the streamer, which is closed with frames in memory
        async with recording_of(tmp_path, camera, monkeypatch, None, messages, **limits) as recorder:
            await recorder.record(RecordingRequest("full"))
            await taken(recorder, camera, *range(50))
            full = recorder.recording
            assert full is not None
            # The first chunk is all that the spool accepts, and is saved before the others exist.
            await until(recorder, lambda: full.saved_frames == 40)
            await taken(recorder, camera, *range(50, 100))
            await recorder.stop()
            await until(recorder, lambda: any("only in memory" in text for text in messages))
            assert recorder.state is RecorderState.FINISHING
    assert any("60 frames at the end of 'full' could not be saved" in text for text in messages)
