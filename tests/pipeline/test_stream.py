"""The state of a stream: its failure is delivered once, its geometry is fixed by the first chunk."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.errors import StreamGoneError
from atomstream.pipeline.ledger import Ledger
from atomstream.pipeline.stream import StreamFailure, StreamState
from tests.pipeline.transports import spec

GONE = StreamGoneError("404", data_id="s")


def test_the_first_failure_is_kept() -> None:
    """A second error does not replace the first one."""
    failure = StreamFailure()
    assert not failure
    assert failure.set(GONE)
    assert not failure.set(StreamGoneError("another", data_id="s"))
    assert failure
    with pytest.raises(StreamGoneError, match="404"):
        failure.raise_if_set()


def test_a_failure_is_raised_by_every_call() -> None:
    """raise_if_set raises the same error to any number of callers; without an error it does nothing."""
    failure = StreamFailure()
    failure.raise_if_set()
    failure.set(GONE)
    for _ in range(2):
        with pytest.raises(StreamGoneError):
            failure.raise_if_set()


@pytest.mark.parametrize("first", [StreamFailure.raise_if_set, StreamFailure.raise_if_undelivered])
def test_a_delivered_failure_is_not_raised_by_finalize(first: object) -> None:
    """raise_if_undelivered raises only if no caller has received the error before."""
    failure = StreamFailure()
    failure.raise_if_undelivered()
    failure.set(GONE)
    with pytest.raises(StreamGoneError):
        first(failure)  # type: ignore[operator]
    failure.raise_if_undelivered()


def test_the_first_chunk_fixes_the_geometry() -> None:
    """Frames of another height, width or dtype are rejected with both formats in the message."""
    stream = StreamState(spec(), Ledger("s"))
    stream.check_geometry((6, 5), np.dtype("u1"))
    stream.fix_geometry((6, 5), np.dtype("u1"))
    with pytest.raises(ValueError, match="frames of 6x5 uint8, fixed by its first chunk; got 6x5 uint16"):
        stream.check_geometry((6, 5), np.dtype("u2"))
    with pytest.raises(ValueError, match="got 5x6 uint8"):
        stream.fix_geometry((5, 6), np.dtype("u1"))
    assert stream.geometry == ((6, 5), np.dtype("u1"))
