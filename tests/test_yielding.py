"""Whoever works for long without the GIL leaves the core in between, and the GIL too."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from atomstream.yielding import yield_core

MANY = 1_000_000


@pytest.fixture
def never_switched() -> Iterator[None]:
    """The interpreter takes the GIL from nobody who does not let it go."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such call")
@pytest.mark.usefixtures("never_switched")
def test_a_yield_lets_go_of_the_gil() -> None:
    """Another Python thread comes to run while one yields again and again, though it never waits."""
    go, came = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: go.wait(20) and came.set())
    other.start()
    go.set()
    for _ in range(MANY):
        yield_core()
        if came.is_set():
            break
    told = came.is_set()
    other.join()
    assert told
