"""A second Ctrl-C at a time that a person can't hit on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atomstream.cli.console import Console
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.playback import Playback, closing_soon, following
from atomstream.sources import SourceChunk, follow_source
from atomstream.streaming import RHEEDStreamer
from tests.live_server import ThreadedServer


class SecondCtrlC(Console):
    """Raises the second Ctrl-C while the message about the first one is written."""

    def write(self, text: str) -> None:
        """Write the message, then raise KeyboardInterrupt if it is about Ctrl-C."""
        super().write(text)
        if "Ctrl-C again" in text:
            raise KeyboardInterrupt


def test_second_ctrl_c_during_the_message_about_the_first(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path
) -> None:
    """A second Ctrl-C during the message about the first one ends the command like any second one, exit code 1."""
    chunk = np.zeros((2, 8, 9), np.uint8)

    def items() -> Iterator[int]:
        server.stop()
        yield 0
        raise KeyboardInterrupt

    def send(index: int) -> int:
        streamer.push(data_id, index, chunk)
        return len(chunk)

    with closing_soon(RHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "spool")) as streamer:
        data_id = streamer.initialize(1.0, 0.0, 2)
        outcome = Playback(SecondCtrlC(), streamer, data_id, None).run(items(), send)
    assert (outcome.interrupted, outcome.ended, outcome.frames_read) == (True, False, 2)
    assert outcome.exit_code == ExitCode.INCOMPLETE


def test_ctrl_c_while_a_file_is_followed(server: ThreadedServer, env: dict[str, str], tmp_path: Path) -> None:
    """The first Ctrl-C ends the following, and the frames that were not a whole chunk yet are delivered."""
    (tmp_path / "a.raw").write_bytes(bytes(5 * 8 * 9))
    source = follow_source(tmp_path / "a.raw", geometry="9x8", fps=1.0)

    class Chunks:
        """Ctrl-C is pressed while the first chunk is waited for."""

        def __init__(self) -> None:
            self._chunks = source.chunks(10)
            self._pressed = False

        def __iter__(self) -> Iterator[SourceChunk]:
            return self

        def __next__(self) -> SourceChunk:
            if not self._pressed:
                self._pressed = True
                raise KeyboardInterrupt
            return next(self._chunks)

    def send(chunk: SourceChunk) -> int:
        streamer.push(data_id, 0, chunk.frames)
        return len(chunk.frames)

    with closing_soon(RHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "spool")) as streamer:
        data_id = streamer.initialize(1.0, 0.0, 10)
        playback = Playback(Console(), streamer, data_id, None, source=source)
        outcome = playback.run(following(Chunks(), source, playback), send)
    assert (outcome.frames_read, outcome.ended, outcome.missing.gaps) == (5, True, ())
    assert outcome.exit_code == ExitCode.INTERRUPTED
