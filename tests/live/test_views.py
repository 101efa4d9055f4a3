"""Views of a turning sample: a number means one azimuth over all analyses, and none are explained with numbers."""

from __future__ import annotations

import pytest

from atomstream.server.live.views import renumbered, why_no_views


@pytest.mark.parametrize(
    ("fps", "rpm", "frames", "n_views", "said"),
    [
        (120.0, 0.0, 5000, 0, ""),
        (120.0, 15.0, 5000, 2, ""),
        (120.0, 15.0, 400, 0, "after the first whole turn, which takes 4 s"),
        (20.0, 30.0, 400, 0, "a turn has 40 frames; to tell azimuths apart takes 60: "),
        (20.0, 30.0, 400, 0, "turn at most at 20 rpm, or film at 30 fps"),
        (120.0, 15.0, 5000, 0, "no azimuth so far"),
    ],
)
def test_the_reason(fps: float, rpm: float, frames: int, n_views: int, said: str) -> None:
    """Nothing where there are views or no rotation; else what is awaited, or what to change."""
    told = why_no_views(fps, rpm, frames, n_views)
    assert said in told
    assert bool(said) == bool(told)


def views(*angles: float) -> list[dict[str, float]]:
    """Views as another analysis counts them."""
    return [{"view_id": number, "angle_deg": angle} for number, angle in enumerate(angles)]


@pytest.mark.parametrize(
    ("angles", "known", "ids"),
    [
        ((1.0, 91.0), {}, [9, 10]),
        ((1.0, 91.0), {4: 93.0, 7: 359.0}, [7, 4]),
        ((45.0, 91.0), {4: 93.0, 7: 359.0}, [9, 4]),
        ((89.0, 95.0), {4: 94.0}, [9, 4]),
    ],
)
def test_another_analysis_finds_the_same_azimuths(
    angles: tuple[float, ...], known: dict[int, float], ids: list[int]
) -> None:
    """The nearest known azimuth within 6 degrees gives its number, to one view only; others get new ones."""
    assert [view["view_id"] for view in renumbered(views(*angles), known, 9)] == ids
