"""The state of a recorder as plain values, for the page and for the line in the terminal."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Final

from atomstream.counted import counted
from atomstream.login import NO_SERVER
from atomstream.record.capture import CapturePlan
from atomstream.record.marks import Mark
from atomstream.record.recorder import Recorder
from atomstream.record.recording import Recording
from atomstream.record.recordings_log import RecordingEntry
from atomstream.record.states import RecorderState
from atomstream.streaming.statistics import StreamerStats

SHOWN_RECORDINGS: Final = 30


async def snapshot(recorder: Recorder) -> dict[str, Any]:
    """What the page shows. Times are UTC ms, sizes bytes, durations s; what is not known is None."""
    stats = await recorder.stats()
    rate = _bytes_per_s(recorder, stats)
    space = recorder.space
    return {
        "now_ms": 1000.0 * time.time(),
        "state": str(recorder.state),
        "camera": _camera(recorder),
        "dashcam": _dashcam(recorder),
        "recording": _recording(recorder, stats),
        "server": _server(recorder, stats),
        "disk": {
            "room_bytes": None if space is None else space.room_bytes,
            "seconds_left": None if space is None or rate is None else space.seconds_left(rate),
            "bytes_per_s": rate,
        },
        "recordings": [
            asdict(entry) | {"unsent_marks": len(entry.unsent_marks)} for entry in _entries(recorder)
        ],
        "early_marks": [_mark(mark) for mark in recorder.early_marks],
        "messages": [{"time_ms": at, "text": text} for at, text in recorder.messages],
    }


def _entries(recorder: Recorder) -> list[RecordingEntry]:
    """The newest recordings, the running one as it is now."""
    running = None if recorder.state is RecorderState.IDLE else recorder.recording
    shown = recorder.entries[:SHOWN_RECORDINGS]
    if running is None or not running.data_id:
        return shown
    return [recorder.entry_of(running), *(one for one in shown if one.data_id != running.data_id)]


def state_line(values: dict[str, Any]) -> str:
    """The state in one line of text: recording, frames lost, saved up to, days of disk left."""
    parts = [_STATES[values["state"]]]
    recording = values["recording"]
    if recording is not None and values["state"] != RecorderState.IDLE:
        parts[0] += f" {span_text(recording['seconds'])}"
        parts.append(f"{counted(recording['lost'], 'frame')} lost")
        saved = recording["saved_ms"]
        parts.append("nothing saved yet" if saved is None else f"saved up to {clock_text(saved)}")
    if values["disk"]["seconds_left"] is not None:
        parts.append(f"disk for {left_text(values['disk']['seconds_left'])}")
    return ", ".join(parts)


def outcome_text(recording: dict[str, Any]) -> str:
    """How the last recording of a snapshot ended, as a sentence."""
    name, frames, saved = recording["name"], recording["frames"], recording["saved_frames"]
    if recording["problem"]:
        kept = (
            f"{saved} of its {counted(frames, 'frame is', 'frames are')} saved."
            if frames
            else "Nothing was recorded."
        )
        return f"{name} was ended by an error: {recording['problem'].rstrip('.')}. {kept}"
    if not frames:
        return f"Nothing was recorded for {name}: no frame came."
    return f"{name} is saved: {span_text(recording['seconds'])}, {counted(frames, 'frame')}, {recording['lost']} lost"


_STATES: Final = {
    RecorderState.IDLE: "not recording",
    RecorderState.RECORDING: "recording",
    RecorderState.PAUSED: "paused",
    RecorderState.FINISHING: "saving",
}


def span_text(seconds: float) -> str:
    """A time span as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def clock_text(time_ms: float) -> str:
    """A moment as the clock of this computer shows it."""
    return time.strftime("%H:%M:%S", time.localtime(time_ms / 1000.0))


def left_text(seconds: float) -> str:
    """How long the disk suffices."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _camera(recorder: Recorder) -> dict[str, Any] | None:
    capture = recorder.capture
    if capture is None:
        return None
    info, counts, plan = capture.info, capture.counts, capture.plan
    newest = capture.newest
    return {
        "source": plan.source,
        "model": info.model,
        "state": capture.state,
        "problem": capture.problem,
        "shape": list(info.shape if newest is None else newest.pixels.shape),
        "dtype": info.dtype if newest is None else str(newest.pixels.dtype),
        "stated_fps": info.fps,
        "measured_fps": capture.measured_fps(),
        "exposure_ms": info.exposure_ms,
        "gain": info.gain,
        "frames": counts.frames,
        "missing": counts.missing,
        "incomplete": counts.incomplete,
        "late": counts.late,
        "reconnects": counts.reconnects,
        "silent_s": capture.silent_s,
        "behind_s": capture.behind_s,
        "plan": _plan(plan),
    }


def _plan(plan: CapturePlan) -> dict[str, Any]:
    """The capture plan, with the field names of the page's request."""
    settings, transforms = plan.settings, plan.transforms
    return {
        "source": plan.source,
        "exposure_ms": settings.exposure_ms,
        "gain": settings.gain,
        "fps": settings.fps,
        "crop": None if transforms.region is None else list(transforms.region),
        "bin_factor": transforms.bin_factor,
        "rotate": transforms.degrees,
        "flip": transforms.direction or "",
    }


def _dashcam(recorder: Recorder) -> dict[str, Any] | None:
    if recorder.capture is None:
        return None
    limits = recorder.capture.dashcam.limits
    return asdict(recorder.capture.dashcam.status()) | {
        "limit_s": limits.seconds,
        "limit_bytes": limits.disk_bytes,
    }


def _recording(recorder: Recorder, stats: StreamerStats) -> dict[str, Any] | None:
    recording = recorder.recording
    if recording is None:
        return None
    stream = recording.stats(stats["streams"])
    values = {
        "data_id": recording.data_id,
        "name": recording.request.name,
        "sample": recording.request.sample,
        "rpm": recording.request.rpm,
        "seconds": recording.seconds,
        "frames": recording.frames,
        "lost": recording.lost,
        "began_ms": recording.began_ms,
        "saved_ms": recording.saved_ms,
        "saved_frames": recording.saved_frames,
        "waiting_frames": recording.waiting_frames,
        "in_memory_only": 0 if stream is None else stream["chunks_in_memory_only"],
        "problem": recording.problem,
        "waits_for_rate": not recording.data_id and recording.capture.fps() is None,
        "marks": [_mark(mark) for mark in recording.marks.marks],
    }
    return values | {"outcome": outcome_text(values) if recorder.state is RecorderState.IDLE else ""}


def _mark(mark: Mark) -> dict[str, Any]:
    return {"label": mark.label, "kind": mark.kind, "time_ms": mark.time_ms}


def _server(recorder: Recorder, stats: StreamerStats) -> dict[str, Any]:
    recording = recorder.recording
    stream = None if recording is None else recording.stats(stats["streams"])
    login = recorder.settings.login
    here = recorder.is_local(recording)
    return {
        "endpoint": None if login is None else login.endpoint,
        "note": recorder.settings.login_note,
        "waiting_chunks": 0 if stream is None else stream["chunks_pending"],
        "standing_still": "" if here or stream is None else stream["standing_still"],
        "page": None if recording is None or here else _page(recording, login.endpoint if login else None),
    }


def _page(recording: Recording, endpoint: str | None) -> str | None:
    server_id = recording.server_id
    if endpoint is None or endpoint == NO_SERVER.endpoint or not server_id:
        return None
    return f"{endpoint}/streams/{server_id}"


def _bytes_per_s(recorder: Recorder, stats: StreamerStats) -> float | None:
    if recorder.state is RecorderState.RECORDING and stats["bytes_in_per_s"] > 0:
        return stats["bytes_in_per_s"]
    capture = recorder.capture
    return None if capture is None else capture.dashcam.bytes_per_s()
