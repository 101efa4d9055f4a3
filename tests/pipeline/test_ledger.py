"""The ledger: one state per index, consistent counts, a watermark that never decreases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import StreamFinalizedError
from atomstream.pipeline.ledger import Ledger
from atomstream.records import ChunkState

STATES: list[ChunkState] = ["stored", "quarantined", "dropped", "purged"]


def test_an_index_is_accepted_once() -> None:
    """A second acceptance of an index returns None."""
    ledger = Ledger("s")
    assert ledger.accept(3) == 3
    assert ledger.accept(3) is None


def test_the_next_index_follows_the_largest() -> None:
    """Without an index a chunk gets the one after the largest accepted."""
    ledger = Ledger("s")
    ledger.accept(7)
    assert ledger.accept() == 8


def test_a_sealed_stream_accepts_nothing() -> None:
    """After seal every acceptance raises a typed error."""
    ledger = Ledger("s")
    ledger.seal()
    with pytest.raises(StreamFinalizedError, match="finalized"):
        ledger.accept(0)


def test_the_first_state_stays() -> None:
    """A resolved chunk keeps its first state."""
    ledger = Ledger("s")
    ledger.accept(0)
    assert ledger.resolve(0, "dropped", "full")
    assert not ledger.resolve(0, "stored")
    assert ledger.report()["lost"] == [(0, "dropped: full")]


def test_never_pushed_indices_are_reported_lost() -> None:
    """A missing index below the largest one is in the report, but does not count as accepted."""
    ledger = Ledger("s")
    for index in (0, 2):
        ledger.accept(index)
        ledger.resolve(index, "stored")
    report = ledger.report()
    assert report["lost"] == [(1, "never pushed")]
    assert report["chunks_spooled"] == report["chunks_uploaded"] == 2


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, *STATES])), max_size=120))
def test_counts_always_add_up(steps: list[tuple[int, ChunkState | None]]) -> None:
    """After any history the counts of the report add up, and the watermark never decreases."""
    ledger, highest = Ledger("s"), -1
    for index, state in steps:
        if state is None or not ledger.contains(index):
            ledger.accept(index)
        if state is not None:
            ledger.resolve(index, state)
        report = ledger.report()
        assert report["chunks_spooled"] == report["chunks_uploaded"] + report["chunks_not_uploaded"]
        parts = ("failed", "dropped", "purged", "pending")
        assert report["chunks_not_uploaded"] == sum(report[f"chunks_{part}"] for part in parts)  # type: ignore[literal-required]
        assert ledger.watermark >= highest
        highest = ledger.watermark
        records = [ledger.get(k) for k in range(highest + 1)]
        assert all(record is not None and record.state != "pending" for record in records)
