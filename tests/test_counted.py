"""Counts in messages: the noun agrees with the number."""

from __future__ import annotations

import pytest

from atomstream.cli.console import status_parts
from atomstream.counted import counted


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (1, ("chunk",), "1 chunk"),
        (2, ("chunk",), "2 chunks"),
        (0, ("chunk",), "0 chunks"),
        (1, ("chunk is", "chunks are"), "1 chunk is"),
        (3, ("chunk is", "chunks are"), "3 chunks are"),
        (0, ("analysis process", "analysis processes"), "0 analysis processes"),
    ],
)
def test_counted(count: int, words: tuple[str, ...], text: str) -> None:
    assert counted(count, *words) == text


@pytest.mark.parametrize(
    ("pending", "watermark", "expected"),
    [(1, -1, ["1 chunk waits"]), (2, 4, ["2 chunks wait", "0 to 4 done"])],
)
def test_progress_of_chunks(pending: int, watermark: int, expected: list[str]) -> None:
    """A progress line names the chunks that are done only when there is at least one."""
    stream = {"chunks_pending": pending, "watermark": watermark, "standing_still": ""}
    stats = {"streams": {"one": stream}, "bytes_out_per_s": 0.0, "buffer_bytes_used": 0.0}
    assert status_parts(stats, "one")[: len(expected)] == expected  # type: ignore[arg-type] # the fields that are used
    assert len(status_parts(stats, "one")) == len(expected) + 2  # type: ignore[arg-type]
