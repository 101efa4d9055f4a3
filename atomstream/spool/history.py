"""What a journal's entries add up to: each chunk in exactly one state (promise P9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard, get_args

from atomstream.records import ChunkState
from atomstream.spool.entries import Entry

_STATES: Final[tuple[str, ...]] = get_args(ChunkState)


@dataclass(slots=True)
class StreamHistory:
    """The sum of a stream's journal.

    ``states`` has every accepted chunk's index; ``digests`` and ``reasons`` where one was given; ``wishes`` is
    the detail of ``finalizing``; ``manifest`` that of ``claimed``.
    """

    states: dict[int, ChunkState] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    finalizing: bool = False
    ended: bool = False
    wishes: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> StreamHistory:
        """The history that ``entries`` tell, in their order."""
        history = cls()
        for entry in entries:
            history.add(entry)
        return history

    def add(self, entry: Entry) -> None:
        """Let one more entry count."""
        if entry.kind == "claimed":
            self.manifest = entry.detail
        elif entry.kind in {"finalizing", "ended", "reopened"}:
            self._add_stream_event(entry)
        else:
            self._add_chunk_event(entry)

    def pending(self) -> list[int]:
        """Indices of accepted chunks that are not settled, in order."""
        return sorted(index for index, state in self.states.items() if state == "pending")

    def next_index(self) -> int:
        """The index after the highest one ever accepted; 0 at first."""
        return max(self.states, default=-1) + 1

    def counts(self) -> dict[ChunkState, int]:
        """How many chunks are in each state."""
        found = Counter(self.states.values())
        return {state: found[state] for state in get_args(ChunkState)}

    def _add_stream_event(self, entry: Entry) -> None:
        self.finalizing = entry.kind != "reopened"
        self.ended = entry.kind == "ended"
        if entry.kind != "ended":
            self.wishes = entry.detail

    def _add_chunk_event(self, entry: Entry) -> None:
        if entry.digest:
            self.digests[entry.index] = entry.digest
        if entry.kind == "accepted":
            self.states.setdefault(entry.index, "pending")
            return
        self.states[entry.index] = entry.kind if _is_state(entry.kind) else "pending"
        self.reasons.pop(entry.index, None)
        if entry.reason:
            self.reasons[entry.index] = entry.reason


def _is_state(kind: str) -> TypeGuard[ChunkState]:
    return kind in _STATES
