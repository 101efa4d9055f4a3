"""The archive on disk, compared with what was sent, frame by frame, through zarr-python."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zarr

from atomstream.sources import Simulator

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


def verify_archive(
    path: Path, simulator: Simulator, n_frames: int, on_progress: Callable[[int], None]
) -> Verification:
    """Compare the archive at ``path`` with ``simulator``'s first ``n_frames`` frames, made anew from the seed.

    Reads shard by shard, so memory holds three chunks; ``on_progress`` is told how many frames are done.
    """
    group: Any = zarr.open_group(path, mode="r")
    frames, time = group["frames"], np.asarray(group["time"][:])
    equal, first_difference = 0, None
    for start, stored in _read_ahead(frames, min(n_frames, frames.shape[0])):
        same = _same(stored, simulator.frames(start, len(stored)))
        equal += int(same.sum())
        if first_difference is None and not same.all():
            first_difference = start + int(np.argmin(same))
        on_progress(start + len(stored))
    timed = int(np.isfinite(time[:n_frames]).sum())
    return Verification(n_frames, frames.shape[0], equal, timed, first_difference)


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


def _same(stored: Stack, sent: Stack) -> npt.NDArray[np.bool_]:
    if stored.shape != sent.shape or stored.dtype != sent.dtype:
        return np.zeros(len(sent), dtype=bool)
    return np.asarray((stored == sent).all(axis=(1, 2)))
