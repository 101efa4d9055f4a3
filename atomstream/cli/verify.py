"""The archive on disk, compared with what was sent, frame by frame, through zarr-python.

What was sent is remembered as one digest a frame (BLAKE2b, 128 bits), taken when it was handed over: half a
gigabyte of frames need not be kept, and the comparison trusts nothing that the client or the server computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr

Stack: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Verification:
    """How the archive compares: frames in it, frames equal to those sent, frames that have a capture time.

    ``first_difference`` is the number of the first frame that differs, None where none does.
    """

    sent: int
    stored: int
    equal: int
    timed: int
    first_difference: int | None

    @property
    def passed(self) -> bool:
        """Whether the archive holds the frames that were sent, all of them and no others."""
        return self.sent == self.stored == self.equal == self.timed


def digest(frame: Stack) -> bytes:
    """What a frame (H, W) is known by: its pixels, and nothing else."""
    return blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()


def verify_archive(path: Path, sent: Sequence[bytes], on_progress: Callable[[int], None]) -> Verification:
    """Compare the archive at ``path`` with the frames whose digests are ``sent``, in their order.

    Reads shard by shard, so memory holds three chunks; ``on_progress`` is told how many frames are done.
    """
    group: Any = zarr.open_group(path, mode="r")
    frames, time = group["frames"], np.asarray(group["time"][:])
    equal = 0
    first_difference: int | None = None
    for start, stored in _read_ahead(frames, min(len(sent), frames.shape[0])):
        same = [digest(frame) == sent[start + k] for k, frame in enumerate(stored)]
        equal += sum(same)
        if first_difference is None and not all(same):
            first_difference = start + same.index(False)
        on_progress(start + len(stored))
    timed = int(np.isfinite(time[: len(sent)]).sum())
    return Verification(len(sent), frames.shape[0], equal, timed, first_difference)


def _read_ahead(frames: Any, n_frames: int) -> Iterator[tuple[int, Stack]]:
    """Shard by shard from the disk; the next one is read while the caller looks at this one."""
    step = frames.shards[0]
    with ThreadPoolExecutor(1, thread_name_prefix="atomstream-verify") as reader:
        ahead: deque[tuple[int, Future[Stack]]] = deque()
        for start in range(0, n_frames, step):
            part = slice(start, min(start + step, n_frames))
            ahead.append((start, reader.submit(frames.__getitem__, part)))
            if len(ahead) == 2:
                yield _taken(ahead)
        while ahead:
            yield _taken(ahead)


def _taken(ahead: deque[tuple[int, Future[Stack]]]) -> tuple[int, Stack]:
    start, future = ahead.popleft()
    return start, future.result()
