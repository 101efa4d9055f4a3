"""Jobs for a worker process, its replies, and their framing on the pipe."""

from __future__ import annotations

import asyncio
import struct
from typing import BinaryIO, Final, Literal, TypeAlias

import msgspec

from atomstream.server.live.annotation_records import AnalyzerEntry, CalibrationRecord, TimedEvent
from atomstream.server.live.messages import AnalyzerBatch


class StreamSettings(msgspec.Struct):
    """Settings of an analyzer. ``state`` is the saved state from which the analysis continues, None for a new
    analyzer."""

    fps: float
    rpm: float
    chunk_size: int
    calibration: CalibrationRecord
    state: bytes | None = None


class ChunkFrames(msgspec.Struct, frozen=True):
    """Where the frames of a chunk are: in the shared memory ``map`` if there is one, else in the shard ``path``.

    ``start`` is the index of the first frame, ``times`` are float64 bytes in s, ``ids`` int64 bytes of the
    camera's frame counter (empty: not known), ``slots`` is the chunk size.
    """

    start: int
    times: bytes
    dims: tuple[int, int, int]
    dtype: Literal["uint8", "uint16"]
    slots: int
    path: str
    map: str | None = None
    ids: bytes = b""


class Job(msgspec.Struct, frozen=True, tag_field="job"):
    """A job for the analyzer that the worker holds under ``key``."""

    key: str


class OpenJob(Job, frozen=True, tag="open"):
    """Start an analyzer."""

    settings: StreamSettings


class AnnotateJob(Job, frozen=True, tag="annotate"):
    """Apply entries of the user."""

    entries: list[AnalyzerEntry]


class ChunkJob(Job, frozen=True, tag="chunk"):
    """Analyse a chunk; with ``state`` the last reply has the analyzer's state."""

    frames: ChunkFrames
    state: bool = False


class LateJob(Job, frozen=True, tag="late"):
    """Measure a late chunk."""

    frames: ChunkFrames


class GapJob(Job, frozen=True, tag="gap"):
    """Skip frames up to index ``until``."""

    until: int


class FinishJob(Job, frozen=True, tag="finish"):
    """End the analysis."""


class CloseJob(Job, frozen=True, tag="close"):
    """Release the analyzer and its memory."""


class BatchReply(msgspec.Struct, frozen=True, tag_field="reply", tag="batch"):
    """Results of the job so far; others may follow."""

    batch: AnalyzerBatch


class AnalyzerState(msgspec.Struct, frozen=True):
    """State of an analyzer, to continue from; ``entries`` are the events whose time has not come."""

    state: bytes
    entries: list[TimedEvent]


class DoneReply(msgspec.Struct, frozen=True, tag_field="reply", tag="done"):
    """The job is done."""

    state: AnalyzerState | None = None


class ReadyReply(msgspec.Struct, frozen=True, tag_field="reply", tag="ready"):
    """The first reply: the process is a worker, and has imported what it needs."""


class ErrorReply(msgspec.Struct, frozen=True, tag_field="reply", tag="error"):
    """The job failed: ``shard`` (the chunk can't be read) or ``analysis`` (an error of the program).

    ``start``, in place of :class:`ReadyReply`: the worker can't begin.
    """

    kind: Literal["shard", "analysis", "start"]
    text: str
    trace: str = ""


AnyJob: TypeAlias = OpenJob | AnnotateJob | ChunkJob | LateJob | GapJob | FinishJob | CloseJob
Reply: TypeAlias = ReadyReply | BatchReply | DoneReply | ErrorReply
_JOBS: Final = msgspec.msgpack.Decoder(AnyJob)
_REPLIES: Final = msgspec.msgpack.Decoder(Reply)

MEMORY_VARIABLE: Final = "ATOMSTREAM_WORKER_BYTES"
"""Environment variable of a worker: how much memory it may take, in bytes."""

# -- framing on the pipe: the length of a message (uint32, little-endian), then msgpack --------------------

_LENGTH: Final = struct.Struct("<I")
MAX_REPLY_BYTES: Final = 1 << 30
"""Longest reply. The first four letters of a text would be a larger number."""


def pack(message: AnyJob | Reply) -> bytes:
    """Encode a message with its length."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def read(pipe: BinaryIO) -> AnyJob | None:
    """Read the next job; None at the end of the pipe. Blocks."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    return _JOBS.decode(pipe.read(_LENGTH.unpack(head)[0]))


async def receive(pipe: asyncio.StreamReader) -> Reply:
    """Read the next reply.

    Raises:
        asyncio.IncompleteReadError: the pipe has ended. ValueError: these are not the bytes of a worker.
    """
    (nbytes,) = _LENGTH.unpack(await pipe.readexactly(_LENGTH.size))
    if nbytes > MAX_REPLY_BYTES:
        raise ValueError(f"a reply of {nbytes} bytes")
    return _REPLIES.decode(await pipe.readexactly(nbytes))
