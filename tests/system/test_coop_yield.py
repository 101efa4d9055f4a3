"""Long work without the GIL yields the core, and the GIL, in between."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from atomstream.system import scheduling as yielding
from atomstream.system.scheduling import CoopYield, yield_core
from tests.system.tuning_marks import needs

MANY = 1_000_000


@pytest.fixture
def never_switched() -> Iterator[None]:
    """Let the interpreter never take the GIL from a thread that does not release it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such call")
@pytest.mark.skipif(sys.version_info < (3, 11, 1), reason="there the call holds the GIL")
@needs("yield")
@pytest.mark.usefixtures("never_switched")
def test_a_yield_releases_the_gil() -> None:
    """Another Python thread runs while one thread only yields and never waits."""
    go, came = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: go.wait(60) and came.set())
    other.start()
    go.set()
    for _ in range(MANY):
        yield_core()
        if came.is_set():
            break
    ran = came.is_set()
    other.join()
    assert ran


def test_short_work_never_yields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work of less than a millisecond never yields; longer work does once a millisecond."""
    now, yields = [5.0], list[float]()
    monkeypatch.setattr(yielding.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(yielding, "yield_core", lambda: yields.append(now[0]))
    coop = CoopYield()
    for now[0] in (5.0, 5.0005, 5.0011, 5.0015, 5.0020, 5.0022):
        coop.yield_if_due()
    assert yields == [5.0011, 5.0022]
