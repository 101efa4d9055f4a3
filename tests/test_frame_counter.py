"""The counter's short path for a camera with steady frame numbers gives the same result as the general rules."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.frame_counter import FrameCounter, missing_before

FPS = 120.0


def by_general_rules(counter: FrameCounter, frame_id: int) -> int:
    """``add`` for a counter that is never steady: a step that waits keeps it from its short path."""
    counter.held.append((1, 1))
    return counter.add(frame_id, FPS)


@pytest.mark.parametrize("seed", range(20))
def test_steady_frames_are_counted_as_by_the_general_rules(seed: int) -> None:
    random = np.random.default_rng(seed)
    steps = random.choice([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 5, 0, -1], size=400)
    ids = np.abs(np.cumsum(steps) + random.choice([0, 65_400, 2**32 - 50])).tolist()
    ids = [one if random.random() > 0.02 else -1 for one in ids]
    fast, general = FrameCounter(), FrameCounter()
    for one in ids:
        if random.random() < 0.005:
            fast.skip()
            general.skip()
        assert fast.add(one, FPS) == by_general_rules(general, one)
        assert (fast.last_id, fast.since, fast.restarted) == (
            general.last_id,
            general.since,
            general.restarted,
        )


@pytest.mark.parametrize("first", [0, 1, 65_500, 2**32 - 20])
def test_a_steady_counter_misses_nothing_until_a_gap(first: int) -> None:
    counter = FrameCounter()
    ids = [*range(first, first + 10), first + 12, first + 13]
    found = [counter.add(one, FPS) for one in ids]
    assert found == missing_before(ids, FPS).tolist()
    assert sum(found) == 2
