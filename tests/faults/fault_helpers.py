"""The checks of every fault: reproducible frames, and the number of lost, corrupted and duplicated chunks."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atomstream import AsyncRHEEDStreamer
from atomstream.records import Frames
from tests.live_server import LiveServer

FPS = 120.0


@dataclass(frozen=True)
class Film:
    """A stream's frames; each chunk is made from the seed and its index, so all chunks differ."""

    seed: int = 0
    n: int = 4
    height: int = 32
    width: int = 40

    def chunk(self, index: int) -> Frames:
        """Chunk ``index``, (n, height, width) uint8."""
        draw = np.random.default_rng((self.seed, index))
        return draw.integers(0, 256, (self.n, self.height, self.width), dtype=np.uint8)


@dataclass
class StepLog:
    """The lines that a pusher wrote to its side file before and after each step."""

    lines: list[list[str]] = field(default_factory=list)

    @classmethod
    def read(cls, side: Path) -> StepLog:
        """All complete lines of a side file."""
        text = side.read_text() if side.exists() else ""
        return cls([line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")])

    def indices(self, word: str) -> set[int]:
        """The chunk indices of the lines with this word."""
        return {int(line[1]) for line in self.lines if line[0] == word}

    def words(self, word: str) -> list[str]:
        """The arguments of the lines with this word, in order."""
        return [" ".join(line[1:]) for line in self.lines if line[0] == word]

    @property
    def data_id(self) -> str:
        """The stream's id; empty if the pusher died before it had one."""
        return next(iter(self.words("stream")), "")


@dataclass
class Tally:
    """One row of the campaign's table. ``quarantined`` counts damaged chunks that were reported and quarantined."""

    fault: str
    tries: int = 0
    chunks: int = 0
    stored: int = 0
    quarantined: int = 0
    lost: int = 0
    corrupted: int = 0
    duplicated: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True if there was at least one try, and no chunk was lost, corrupted or duplicated."""
        return self.tries > 0 and self.chunks > 0 and not (self.lost or self.corrupted or self.duplicated)

    def check_stream(
        self, stored_stream: StoredStream, must: Iterable[int], offered: Iterable[int], film: Film
    ) -> None:
        """Compare the server's chunks with those it must have (``offered``: those it may have)."""
        owed = set(must)
        wrong = {k for k in stored_stream.chunks if k in set(offered) and not stored_stream.equals(k, film)}
        strangers = set(stored_stream.chunks) - set(offered)
        self.tries += 1
        self.chunks += len(owed)
        self.stored += len(owed & set(stored_stream.chunks))
        self._count("lost", owed - set(stored_stream.chunks))
        self._count("corrupted", wrong)
        self._count("duplicated", strangers)

    def count_failure(self, what: str, note: str) -> None:
        """Count one more chunk as ``what`` (lost, corrupted, duplicated), with a reason."""
        setattr(self, what, getattr(self, what) + 1)
        self.notes.append(f"{what}: {note}")

    def _count(self, what: str, indices: Collection[int]) -> None:
        if indices:
            setattr(self, what, getattr(self, what) + len(indices))
            self.notes.append(f"try {self.tries}: {what} {sorted(indices)[:10]}")


class StoredStream:
    """One stream in the server's folder."""

    def __init__(self, folder: Path) -> None:
        from atomstream.server.archive.stream_archive import StreamArchive

        self._archive = StreamArchive.open(folder) if folder.exists() else None
        self.chunks: dict[int, int] = dict(self._archive.chunks()) if self._archive else {}

    @property
    def about(self) -> dict[str, Any]:
        """The stream's metadata in the archive."""
        return self._archive.about if self._archive else {}

    def equals(self, index: int, film: Film) -> bool:
        """True if chunk ``index`` equals the film's, byte by byte."""
        if self._archive is None or self.chunks.get(index) != film.n:
            return False
        start = index * film.n
        return np.array_equal(self._archive.frames(start, start + film.n), film.chunk(index))


async def push_without_server(
    streamer: AsyncRHEEDStreamer, server: LiveServer, film: Film, count: int
) -> str:
    """Begin a stream, stop the server, and push so many chunks of ``film``; returns the stream's id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        data_id = await streamer.initialize(FPS, 0.0, film.n)
    await server.stop()
    for index in range(count):
        await streamer.push(data_id, index, film.chunk(index))
    return data_id
