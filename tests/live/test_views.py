"""Why a turning sample has no views: said with numbers that help."""

from __future__ import annotations

import pytest

from atomstream.server.live.views import why_no_views


@pytest.mark.parametrize(
    ("fps", "rpm", "frames", "n_views", "said"),
    [
        (120.0, 0.0, 5000, 0, ""),
        (120.0, 15.0, 5000, 2, ""),
        (120.0, 15.0, 400, 0, "after the first whole turn, which takes 4 s"),
        (20.0, 30.0, 400, 0, "a turn has 40 frames; to tell azimuths apart takes 162: "),
        (20.0, 30.0, 400, 0, "turn at most at 7.41 rpm, or film at 81 fps"),
        (120.0, 15.0, 5000, 0, "no azimuth so far"),
    ],
)
def test_the_reason(fps: float, rpm: float, frames: int, n_views: int, said: str) -> None:
    """Nothing where there are views or no rotation; else what is awaited, or what to change."""
    told = why_no_views(fps, rpm, frames, n_views)
    assert said in told
    assert bool(said) == bool(told)
