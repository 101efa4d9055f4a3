"""The table of attacks with few tries: each case has the expected result, and the running stream loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.attacks.__main__ import CASES, run

SHORT = [
    "wrong API keys", "bytes that are not HTTP", "paths to other files", "pages of other sites",
    "every route without a key", "the key in wrong places", "frames larger than their body",
    "a chunk under the largest index", "the same chunk at once", "changed upload URLs", "JSON of every kind",
]  # fmt: skip
"""The cases that need no waiting; all of them are in the table that the command prints."""


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_the_attacks_change_nothing(memory_path: Path) -> None:
    """In each attack the server answers as expected, and the running stream loses no chunk: each row ends with yes."""
    lines: list[str] = []
    assert set(SHORT) <= CASES.keys()
    assert run(SHORT, 0.02, memory_path, lines.append), "\n".join(lines)
    assert len(lines) == len(SHORT) + 2
