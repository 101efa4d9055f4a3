"""Ctrl-C at the moments that no person can aim at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atomstream.cli.console import Console
from atomstream.cli.exit_codes import ExitCode
from atomstream.cli.playback import Playback, leaving
from atomstream.streaming import RHEEDStreamer
from tests.live_server import ThreadedServer


class Impatient(Console):
    """Who presses Ctrl-C a second time while the first is being answered."""

    def say(self, text: str) -> None:
        """Say it; the second Ctrl-C comes within."""
        super().say(text)
        if "Ctrl-C again" in text:
            raise KeyboardInterrupt


def test_a_second_ctrl_c_within_the_answer_to_the_first(
    server: ThreadedServer, env: dict[str, str], tmp_path: Path
) -> None:
    """A second Ctrl-C that comes while the first is answered ends the command as any second one: exit 1."""
    chunk = np.zeros((2, 8, 9), np.uint8)

    def items() -> Iterator[int]:
        server.stop()
        yield 0
        raise KeyboardInterrupt

    def send(index: int) -> int:
        streamer.push(data_id, index, chunk)
        return len(chunk)

    with leaving(RHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path / "spool")) as streamer:
        data_id = streamer.initialize(1.0, 0.0, 2)
        outcome = Playback(Impatient(), streamer, data_id, None).run(items(), send)
    assert (outcome.interrupted, outcome.ended, outcome.frames_read) == (True, False, 2)
    assert outcome.exit_code == ExitCode.INCOMPLETE
