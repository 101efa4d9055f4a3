"""Copies by two threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atomstream.pipeline import admission as copying
from atomstream.pipeline.admission import copy_together


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "SHARED_COPY_BYTES", 1)


@pytest.fixture
def helpers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("step", [1, 2, -1])
def test_the_copy_is_complete(helpers: ThreadPoolExecutor, count: int, step: int) -> None:
    """For any number of frames and any strides, all bytes are copied."""
    source = np.random.default_rng(count).integers(0, 256, (count, 30, 40), dtype=np.uint8)[:, ::step]
    target = np.zeros_like(source)
    for _ in range(50):
        target[:] = 0
        copy_together(target, source, helpers)
        assert np.array_equal(target, source)


def test_a_busy_helper_is_not_waited_for(helpers: ThreadPoolExecutor) -> None:
    """If no second thread is free, one thread copies all. The helper never writes to the array later."""
    go_on = threading.Event()
    busy = helpers.submit(go_on.wait, 60)
    source, target = np.ones((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8)
    copy_together(target, source, helpers)
    assert target.all()
    target[:] = 0
    go_on.set()
    assert busy.result()
    helpers.submit(lambda: None).result()
    assert not target.any()


def test_a_copy_works_without_helpers() -> None:
    """After the pool was shut down one thread makes the copy."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    target = np.zeros((4, 5, 6), np.uint8)
    copy_together(target, np.ones_like(target), pool)
    assert target.all()
