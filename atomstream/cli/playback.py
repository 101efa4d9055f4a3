"""Frames from a source to a stream, to its very end, with Ctrl-C on the way.

The first Ctrl-C stops the reading and finalizes what was read; the second leaves at once and says what was
not delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from atomstream.cli.console import Console
from atomstream.cli.exits import ExitCode
from atomstream.cli.progress import Progress
from atomstream.errors import ConfigError, DrainTimeoutError
from atomstream.records import ClockStatus
from atomstream.streaming import RHEEDStreamer
from atomstream.streaming.status import StreamerStats

Item = TypeVar("Item")

LEAVE_S: Final = 2.0


class SourceBrokeError(Exception):
    """The source could not be read on; ``__cause__`` says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one playback; ``seconds`` from the first frame read to the last chunk stored."""

    data_id: str
    frames_read: int
    seconds: float
    stats: StreamerStats
    lost: list[tuple[int, str]]
    ended: bool
    interrupted: bool
    source_problem: str
    clock: ClockStatus | None

    @property
    def exit_code(self) -> ExitCode:
        """What the command says with it."""
        stream = self.stats["streams"][self.data_id]
        if not self.ended or self.lost or stream["chunks_stored"] != stream["chunks_accepted"]:
            return ExitCode.INCOMPLETE
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.USAGE if self.source_problem else ExitCode.DONE


@contextmanager
def leaving(streamer: RHEEDStreamer) -> Iterator[RHEEDStreamer]:
    """Close ``streamer`` at the end; what was not delivered gets a moment to reach the spool on disk."""
    try:
        yield streamer
    finally:
        streamer.close(LEAVE_S)


class Playback:
    """Plays one source into one stream of ``streamer``."""

    def __init__(
        self,
        console: Console,
        streamer: RHEEDStreamer,
        data_id: str,
        n_frames: int | None,
        drain_timeout_s: float | None = None,
    ) -> None:
        self._console = console
        self._streamer = streamer
        self._data_id = data_id
        self._progress = Progress(console, streamer, data_id, n_frames)
        self._drain_timeout_s = drain_timeout_s
        self._interrupted = False
        self._source_problem = ""

    def run(self, items: Iterable[Item], send: Callable[[Item], int]) -> Outcome:
        """``send`` each item, which tells how many frames it was; then finalize, come what may.

        Raises:
            What ``send`` raises: the stream's own errors.
        """
        began = time.perf_counter()
        with self._progress:
            lost, ended = self._play(items, send)
            return Outcome(
                data_id=self._data_id,
                frames_read=self._progress.frames_sent,
                seconds=time.perf_counter() - began,
                stats=self._streamer.stats(),
                lost=lost,
                ended=ended,
                interrupted=self._interrupted,
                source_problem=self._source_problem,
                clock=self._streamer.clock_status(),
            )

    def _play(self, items: Iterable[Item], send: Callable[[Item], int]) -> tuple[list[tuple[int, str]], bool]:
        try:
            self._feed(items, send)
            return self._finish()
        except KeyboardInterrupt:
            # The second one, which may come while the first is told of; or one in finalize.
            self._interrupted = True
            self._console.say("Ctrl-C: leaving now.")
        return [], False

    def _feed(self, items: Iterable[Item], send: Callable[[Item], int]) -> None:
        try:
            for item in _telling_apart(items):
                self._progress.frames_sent += send(item)
        except KeyboardInterrupt:
            self._interrupted = True
            self._console.say(
                "Ctrl-C: no more frames are read. Delivering those that were; Ctrl-C again leaves at once."
            )
        except SourceBrokeError as error:
            self._source_problem = str(error)
            self._console.say(f"atomstream: {error} What was read before is delivered.")

    def _finish(self) -> tuple[list[tuple[int, str]], bool]:
        try:
            report = self._streamer.finalize(self._data_id, self._drain_timeout_s)
            return report["lost"], report["closed"]
        except DrainTimeoutError as error:
            self._console.say(f"atomstream: {error}")
            return [], False


def _telling_apart(items: Iterable[Item]) -> Iterator[Item]:
    """``items``, with what goes wrong in reading told apart from what goes wrong in sending."""
    iterator = iter(items)
    end: Any = object()
    while True:
        try:
            item = next(iterator, end)
        except (ConfigError, OSError) as error:
            raise SourceBrokeError(f"{str(error).rstrip('.')}.") from error
        if item is end:
            return
        yield item
