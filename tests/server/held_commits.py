"""Chunks whose commit to the archive waits until the test allows it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from atomstream.server.archive.stream_archive import CommitResult, StreamArchive


@dataclass(frozen=True)
class HeldCommits:
    """``began`` is set when a commit has begun; it goes on once ``go_on`` is set."""

    began: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


def hold_commits(monkeypatch: pytest.MonkeyPatch) -> HeldCommits:
    """Hold each commit of this process."""
    events, commit = HeldCommits(), StreamArchive.commit

    def held(*args: Any) -> CommitResult:
        events.began.set()
        events.go_on.wait()
        return commit(*args)

    monkeypatch.setattr(StreamArchive, "commit", held)
    return events
