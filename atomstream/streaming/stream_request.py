"""The arguments of ``initialize``, ``push`` and ``push_frame`` as records; those of ``initialize`` are checked here."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from atomstream.checks import integer_in_range, number_in_range
from atomstream.errors import ConfigError
from atomstream.protocol import MAX_CHUNK_SIZE, MAX_FPS, MAX_NAME_CHARS, MAX_RPM, MIN_FPS
from atomstream.records import Frames

HOSTED_CHUNK_S: Final = 2.0
"""Shortest chunk that the hosted service accepts, in seconds of frames."""


@dataclass(frozen=True, slots=True)
class InitializeRequest:
    """The arguments of ``initialize`` as the caller passed them, not yet checked."""

    fps: float
    rotations_per_min: float
    chunk_size: int
    stream_name: str | None = None
    physical_sample: str | UUID | None = None
    project_id: str | UUID | None = None
    tags: Iterable[str | UUID] | None = None
    azimuth: str | None = None

    def checked(self) -> StreamRequest:
        """Check the arguments and convert each one to its type.

        Raises:
            TypeError: an argument has the wrong type. ConfigError (a ValueError): an argument is invalid.
        """
        rpm = number_in_range("rotations_per_min", self.rotations_per_min, 0.0, MAX_RPM)
        checked = StreamRequest(
            fps=_fps(self.fps),
            rpm=rpm,
            chunk_size=_chunk_size(self.chunk_size),
            name=optional_text("stream_name", self.stream_name) or default_name(datetime.now()),
            sample=optional_text("physical_sample", self.physical_sample),
            project_id=_stripped(optional_text("project_id", self.project_id)),
            tags=checked_tags(self.tags),
            azimuth=optional_text("azimuth", self.azimuth),
        )
        if checked.azimuth is not None and rpm:
            raise ConfigError(
                f"azimuth={checked.azimuth!r} needs a stationary stream, but rotations_per_min is {rpm:g}: "
                "leave azimuth out, or pass rotations_per_min=0.0."
            )
        return checked

    def warn_if_short(self, stacklevel: int) -> None:
        """Give a UserWarning if a chunk is shorter than 2 s. ``stacklevel`` 1 is the caller of this method.

        Raises:
            TypeError, ConfigError: ``fps`` or ``chunk_size`` is invalid.
        """
        fps, chunk_size = _fps(self.fps), _chunk_size(self.chunk_size)
        if chunk_size / fps < HOSTED_CHUNK_S:
            warnings.warn(_short_chunks(chunk_size, fps), UserWarning, stacklevel=stacklevel + 1)


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The checked arguments of ``initialize``: ``fps`` in 1/s, ``rpm`` in 1/min, ``chunk_size`` in frames."""

    fps: float
    rpm: float
    chunk_size: int
    name: str
    sample: str | None
    project_id: str | None
    tags: tuple[str, ...]
    azimuth: str | None


def default_name(now: datetime) -> str:
    """Return a name such as ``RHEED Stream @ 4:41PM``, the same on every platform and in every locale."""
    half = "AM" if now.hour < 12 else "PM"
    return f"RHEED Stream @ {now.hour % 12 or 12}:{now.minute:02d}{half}"


def optional_text(name: str, value: str | UUID | None) -> str | None:
    """Return the text, None for None; raises TypeError or ConfigError for anything else, and for an empty text."""
    return None if value is None else _text(name, value)


def _stripped(text: str | None) -> str | None:
    return text and text.strip()


def _text(name: str, value: str | UUID) -> str:
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__} ({value!r}).")
    if not value.strip():
        raise ConfigError(f"{name} is empty: leave it out, or pass a string.")
    if len(value.strip()) > MAX_NAME_CHARS:
        raise ConfigError(
            f"{name} has {len(value.strip())} characters; at most {MAX_NAME_CHARS} are allowed."
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name}={value!r} contains an invalid character (a lone surrogate).") from None
    return value


def checked_tags(tags: Iterable[str | UUID] | None) -> tuple[str, ...]:
    """Return the tags as strings; raises TypeError or ConfigError for anything else."""
    if tags is None:
        return ()
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise TypeError(f"tags must be a list of str, such as ['night shift'], not {tags!r}.")
    return tuple(_text("a tag", tag) for tag in tags)


def _fps(value: float) -> float:
    return number_in_range("fps", value, MIN_FPS, MAX_FPS)


def _chunk_size(value: int) -> int:
    return integer_in_range("chunk_size", value, 1, MAX_CHUNK_SIZE)


def _short_chunks(chunk_size: int, fps: float) -> str:
    return (
        f"chunk_size={chunk_size} is {chunk_size / fps:.3g} s of frames at {fps:g} fps. The hosted service requires "
        f"at least {HOSTED_CHUNK_S:g} s (chunk_size={_frames_for_hosted(fps)}). An atomstream server accepts "
        "short chunks too, and its results are then available earlier."
    )


def _frames_for_hosted(fps: float) -> int:
    return -int(-HOSTED_CHUNK_S * fps // 1)


class ChunkArguments(NamedTuple):
    """The arguments of ``AsyncRHEEDStreamer.push``, not checked yet."""

    data_id: str
    chunk_idx: int
    frames: Frames
    capture_start_ms_utc: float | None
    frame_times_ms: Sequence[float] | None
    frame_ids: Sequence[int] | None
    angles_deg: Sequence[float] | None
    copy: bool


class FrameArguments(NamedTuple):
    """The arguments of ``AsyncRHEEDStreamer.push_frame``, not checked yet."""

    data_id: str
    frame: Frames
    capture_ms_utc: float | None = None
    frame_id: int | None = None
    angle_deg: float | None = None
