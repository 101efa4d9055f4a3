"""Views of a rotating sample: a number is one azimuth in all analyses, and missing views have a reason with numbers."""

from __future__ import annotations

import pytest

from atomstream.server.live.messages import MeasurementRecord, ViewRecord
from atomstream.server.live.view_tracks import MAX_TURNS, ViewTrack, renumbered, why_no_views


@pytest.mark.parametrize(
    ("fps", "rpm", "frames", "n_views", "expected"),
    [
        (120.0, 0.0, 5000, 0, ""),
        (120.0, 15.0, 5000, 2, ""),
        (120.0, 15.0, 400, 0, "after the first whole turn, which takes 4 s"),
        (20.0, 30.0, 400, 0, "a turn has 40 frames; to distinguish azimuths, 60 are needed: "),
        (20.0, 30.0, 400, 0, "rotate at most at 20 rpm, or record at 30 fps"),
        (120.0, 15.0, 5000, 0, "no azimuth so far"),
    ],
)
def test_the_reason(fps: float, rpm: float, frames: int, n_views: int, expected: str) -> None:
    """Empty if there are views or no rotation; otherwise what is awaited, or what to change."""
    reason = why_no_views(fps, rpm, frames, n_views)
    assert expected in reason
    assert bool(expected) == bool(reason)


def views(*angles: float) -> list[ViewRecord]:
    """Views as another analysis numbers them."""
    spacing = MeasurementRecord(40.0, 0.02, "px")
    return [ViewRecord(number, angle, 0.9, spacing, 7.0, 1) for number, angle in enumerate(angles)]


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
    assert [view.view_id for view in renumbered(views(*angles), known, 9)] == ids


def turn(number: int) -> tuple[ViewRecord, dict[str, float | None]]:
    """A view after ``number`` turns, with its frame and time."""
    spacing = MeasurementRecord(40.0 + number / 7.0, None if number % 3 else 0.02, "px")
    return ViewRecord(3, 91.5, 0.9, spacing, 7.0, number), {
        "frame": 480 * number,
        "time_s": 4.0 * number,
        "oscillation_period": None,
    }


def test_a_track_is_read_as_it_was_added() -> None:
    """One point per turn with the added numbers, None where there is none; also for a track made from its bytes."""
    track = ViewTrack()
    for number in (1, 2, 2, 3):
        view, more = turn(number)
        track.add(view, **more)
    for read in (track, ViewTrack(track.raw())):
        assert [point["turns"] for point in read] == [1, 2, 3]
        assert read[-1] == {
            "frame": 1440,
            "time_s": 12.0,
            "angle_deg": 91.5,
            "confidence": 0.9,
            "turns": 3,
            "spacing_px": 40.0 + 3 / 7.0,
            "spacing_sigma_px": 0.02,
            "specular_intensity": 7.0,
            "oscillation_period": None,
        }
        assert read[1]["spacing_sigma_px"] is None
    assert len(ViewTrack()) == 0


def test_a_track_has_a_bound() -> None:
    """Ten hours at 15 rpm take under 1 MB per view, with all turns; longer streams keep the first and newest."""
    track = ViewTrack()
    for number in range(1, 2 * MAX_TURNS):
        view, more = turn(number)
        track.add(view, **more)
        assert track.nbytes < 1.5e6
        if number == 9000:
            assert len(track) == 9000
            assert track.nbytes < 1e6
    turns = [point["turns"] for point in track]
    assert turns == sorted(set(turns))
    assert turns[0] == 1
    assert turns[-1] == 2 * MAX_TURNS - 1
    assert len(turns) > MAX_TURNS // 2
