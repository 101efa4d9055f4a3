"""What every camera needs beside its driver: numbers, times, gaps, damaged frames, a camera that comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from atomstream.cameras import CameraFeed, CameraInfo, Grabber
from atomstream.errors import CameraError, CameraLostError
from tests.cameras.scripted_camera import Clock, ScriptedCamera, Step, frame, grab_all

INFO = CameraInfo(model="scripted", shape=(2, 3), fps=10.0, id_bits=16, id_first=1)


def timed(*ids: int | None, period_ms: float = 100.0) -> list[Step]:
    """Frames with these counters, one period apart."""
    return [frame(number, 1e6 + period_ms * place) for place, number in enumerate(ids)]


@pytest.mark.parametrize(
    ("bits", "first", "counters", "numbers"),
    [
        (16, 1, [65534, 65535, 1, 2], [65534, 65535, 65536, 65537]),
        (16, 0, [65534, 65535, 0, 1], [65534, 65535, 65536, 65537]),
        (16, 1, [65533, 65535, 2], [65533, 65535, 65537]),
        (32, 0, [2**32 - 3, 2**32 - 2, 0], [2**32 - 3, 2**32 - 2, 2**32]),
        (64, 0, [5, 2**64 - 1, 2**64 - 1, 8], [5, 6, 7, 8]),
        (16, 0, [0, 0, 0], [0, 1, 2]),
        (16, 0, [60000, 60001, 0, 1], [60000, 60001, 60002, 60003]),
    ],
)
def test_counters_that_wrap_restart_or_stand_still(
    bits: int, first: int, counters: list[int], numbers: list[int]
) -> None:
    """Numbers ascend over wraps of 16 and 32 bits, unknown (all ones) and constant counters, and restarts."""
    info = replace(INFO, id_bits=bits, id_first=first)
    frames, _, _ = grab_all(ScriptedCamera(timed(*counters), info))
    assert [one.frame_id for one in frames] == numbers


def test_a_camera_without_counter_has_no_numbers() -> None:
    frames, grabber, messages = grab_all(ScriptedCamera(timed(None, None), replace(INFO, id_bits=0)))
    assert [one.frame_id for one in frames] == [None, None]
    assert (grabber.counts.missing, messages) == (0, [])


def test_dropped_frames_are_counted_and_reported_once() -> None:
    """Frames that the driver dropped are counted; further gaps within 5 s are reported together with the next one."""
    clock = Clock()

    def steps() -> Iterator[Step]:
        yield from timed(1, 2)
        for place, number in enumerate((5, 7, 9)):
            yield frame(number, 1e6 + 500 + 200 * place)
        clock.now += 6.0
        yield frame(11, 1e6 + 1100)

    frames, grabber, messages = grab_all(ScriptedCamera(steps(), INFO), clock)
    assert [one.frame_id for one in frames] == [1, 2, 5, 7, 9, 11]
    assert grabber.counts.missing == 5
    assert messages == [
        "scripted:0: missing frames: 2 (the camera counted them, but they did not arrive)",
        "scripted:0: missing frames: 3 (the camera counted them, but they did not arrive)",
    ]


@pytest.mark.parametrize("fps", [None, 10.0])
def test_counters_that_rise_in_steps(fps: float | None) -> None:
    """A driver that sends every 4th frame: nothing is missing, except where a step is a longer one; the measured
    rate is that of the frames.
    """
    counters = [4, 8, 12, 16, 24, 28, 32]
    steps = [frame(number, 1e6 + 25.0 * number) for number in counters]
    frames, grabber, _ = grab_all(ScriptedCamera(steps, replace(INFO, fps=fps)))
    assert [one.frame_id for one in frames] == counters
    first_step = 3  # one step alone may be a gap
    assert grabber.counts.missing == first_step + 1
    feed = CameraFeed(
        Grabber(ScriptedCamera(timed(*range(0, 80, 4), period_ms=100.0), replace(INFO, fps=fps)))
    )
    with feed.grabber:
        feed.start()
        assert feed.measured_rate() == pytest.approx(10.0)
        feed.stop()


def test_incomplete_frames_are_reported_and_left_out() -> None:
    """An incomplete frame is not handed on; the numbers have a gap there, and it does not count as missing."""
    steps = timed(1, 2, 3)
    steps[1] = frame(2, 0.0, problem="3 packets are missing")
    frames, grabber, messages = grab_all(ScriptedCamera(steps, INFO))
    assert [one.frame_id for one in frames] == [1, 3]
    assert (grabber.counts.incomplete, grabber.counts.missing, grabber.counts.frames) == (1, 0, 2)
    assert messages == ["scripted:0: incomplete frames, left out: 1 (3 packets are missing)"]


def test_late_frames_keep_the_order() -> None:
    """A frame that the driver delivers after a later one is reported and left out, and the numbers go on."""
    steps: list[Step] = [frame(1, 1e6), frame(3, 1e6 + 200), frame(2, 1e6 + 100), frame(4, 1e6 + 300)]
    frames, grabber, messages = grab_all(ScriptedCamera(steps, INFO))
    assert [one.frame_id for one in frames] == [1, 3, 4]
    assert grabber.counts.late == 1
    assert messages[-1] == "scripted:0: late frames, left out: 1 (a later frame came before)"


def test_a_late_arrival_does_not_move_the_time_of_a_frame() -> None:
    """With the camera's own clock, frames that wait in a buffer keep their distance in time."""
    clock = Clock()

    def steps() -> Iterator[Step]:
        for number, delay in enumerate((0.003, 0.001, 0.4, 0.3, 0.2, 0.001)):
            clock.now = 1000.0 + 0.1 * number + delay
            yield frame(number, 5000.0 + 100.0 * number)

    frames, _, _ = grab_all(ScriptedCamera(steps(), replace(INFO, device_clock=True)), clock)
    times = [one.time_ms_utc or 0.0 for one in frames]
    assert times[-1] == pytest.approx(1000_501.0, abs=0.01)
    assert [after - before for before, after in pairwise(times[1:])] == pytest.approx([100.0] * 4, abs=0.1)


def test_a_clock_that_is_set_back() -> None:
    """After a restart of the camera's clock the times are those of the arrival again."""
    clock = Clock()

    def steps() -> Iterator[Step]:
        for number, device_ms in enumerate((90_000.0, 90_100.0, 50.0, 150.0)):
            clock.now = 1000.0 + 0.1 * number
            yield frame(number, device_ms)

    frames, _, _ = grab_all(ScriptedCamera(steps(), replace(INFO, device_clock=True)), clock)
    assert [one.time_ms_utc for one in frames] == pytest.approx(
        [1e6, 1e6 + 100, 1e6 + 200, 1e6 + 300], abs=0.1
    )


def test_a_camera_that_is_unplugged_and_comes_back() -> None:
    """The frames go on after the camera is back, numbered by the time that passed; the loss and the return are reported
    once.
    """
    clock = Clock()

    def steps() -> Iterator[Step]:
        yield from timed(7, 8)
        yield CameraLostError("The device was removed.")
        clock.now += 2.0
        yield frame(0, 1e6 + 100 + 2000)
        yield frame(1, 1e6 + 100 + 2100)

    absent = CameraError("not there")
    camera = ScriptedCamera(steps(), INFO, opening=[None, absent, absent, absent, None])
    frames, grabber, messages = grab_all(camera, clock)
    assert [one.frame_id for one in frames] == [7, 8, 28, 29]
    assert (grabber.counts.reconnects, grabber.counts.missing, camera.opened) == (1, 19, 5)
    lost, back, missing = messages
    assert "is lost: The device was removed." in lost
    assert "is back after" in back
    assert "missing frames: 19" in missing


def test_a_silent_camera_is_opened_again() -> None:
    """A camera with a known rate that delivers nothing for 5 s is opened again."""
    clock = Clock()

    def steps() -> Iterator[Step]:
        yield from timed(1)
        for _ in range(4):
            clock.now += 1.0
            yield None
        clock.now += 1.5
        yield None
        yield frame(1, 1e6 + 5600)

    frames, grabber, messages = grab_all(ScriptedCamera(steps(), INFO), clock)
    assert [one.frame_id for one in frames] == [1, 57]
    assert grabber.counts.reconnects == 1
    assert "no frame for 6 s" in messages[0]


def test_a_camera_without_a_rate_may_pause() -> None:
    """A camera that states no rate, such as a watched folder, is not taken for lost."""
    clock = Clock()

    def steps() -> Iterator[Step]:
        yield from timed(1)
        clock.now += 4000.0
        yield None
        yield frame(2, 5e6)

    _, grabber, _ = grab_all(ScriptedCamera(steps(), replace(INFO, fps=None)), clock)
    assert (grabber.counts.frames, grabber.counts.reconnects) == (2, 0)


def test_a_camera_that_comes_back_with_other_frames() -> None:
    """Another frame size after the return ends the stream with an error that names both."""
    steps: list[Step] = [*timed(1), CameraLostError("gone")]
    camera = ScriptedCamera(steps, INFO, opening=[None, replace(INFO, shape=(4, 6))])
    with pytest.raises(CameraError, match=r"\(4, 6\).*instead of \(2, 3\)"):
        grab_all(camera)
    assert camera.closed


def test_another_error_of_the_driver_is_raised() -> None:
    with pytest.raises(CameraError, match="broken"):
        grab_all(ScriptedCamera([*timed(1), CameraError("broken")], INFO))
