"""When a frame was taken, for each reader: units, missing times, order, rates; no rate is invented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source
from atomstream.sources.times import seconds, unit_seconds
from atomstream.sources.video_times import in_order
from tests.sources.avi_files import avi
from tests.sources.file_table import (
    GREY,
    Cell,
    check,
    hdf5,
    npy,
    npz,
    parametrized,
    pictures,
    tiff,
    video,
    zarr_array,
    zarr_group,
)
from tests.sources.source_files import av

STEPS = np.array([0.0, 50.0, 150.0])
TIMES = [0.0, 0.05, 0.15]
DIMS = {"dims": ("time", "y", "x")}
DATES = np.array(["2025-03-01T12:00:00.000", "2025-03-01T12:00:00.050", "2025-03-01T12:00:00.150"], "M8[ns]")
MISSING = np.where([False, True, False], np.datetime64("NaT"), DATES)


def zarr_times(values: Any, **notes: Any) -> Callable[[Path], Path]:
    """Write a Zarr group of frames with their times, as xarray does."""
    return zarr_group({"frames": (GREY, DIMS), "time": (np.asarray(values), {"dims": ("time",), **notes})})


def xarray_zarr(time: Any, zarr_format: Any) -> Callable[[Path], Path]:
    """Write frames with dates by xarray."""

    def write(folder: Path) -> Path:
        xarray = pytest.importorskip("xarray")
        data = xarray.Dataset({"frames": (("time", "y", "x"), GREY)}, coords={"time": time})
        data.to_zarr(folder / "a.zarr", mode="w", zarr_format=zarr_format, consolidated=False)
        return folder / "a.zarr"

    return write


NESTED = {
    "entry/film": (GREY, {}),
    "entry/time": (STEPS, {"units": "ms"}),
    "time": (np.arange(3) * 9.0, {}),
}

ZARR = [
    Cell("zarr", "seconds", zarr_times(TIMES), GREY, times_s=TIMES),
    *(
        Cell("zarr", unit, zarr_times(STEPS * factor, units=unit), GREY, times_s=TIMES)
        for unit, factor in (
            ("ms", 1),
            ("milliseconds", 1),
            ("milliseconds since 2025-03-01T12:00:00", 1),
            ("seconds since 1970-01-01", 1e-3),
            ("us", 1e3),
            ("µs", 1e3),
            ("nanosecond", 1e6),
            ("min", 1e-3 / 60),
        )
    ),
    Cell(
        "zarr",
        "unknown unit",
        zarr_times(STEPS, units="frames"),
        refused="'frames', which is not known.*--time-unit ms",
    ),
    Cell(
        "zarr",
        "unit by option",
        zarr_times(STEPS, units="frames"),
        GREY,
        times_s=TIMES,
        options={"time_unit": "ms"},
    ),
    Cell(
        "zarr",
        "wrong option",
        zarr_times(STEPS),
        refused=r"--time-unit\) is 'fortnight'",
        options={"time_unit": "fortnight"},
    ),
    Cell(
        "zarr", "ignored", zarr_times(STEPS, units="frames"), GREY, times_s=[], options={"ignore_times": True}
    ),
    Cell(
        "zarr",
        "backwards",
        zarr_times([0.0, 0.2, 0.1]),
        refused="runs backwards at frame 2, by 0.1 s.*--ignore-times",
    ),
    Cell("zarr", "a gap", zarr_times([3.0, np.nan, 3.15]), GREY[[0, 2]], times_s=[0.0, 0.15]),
    Cell(
        "zarr",
        "fill value",
        zarr_times([300, -1, 315], units="cs", _FillValue=-1, scale_factor=10.0),
        refused="'cs'",
    ),
    Cell(
        "zarr",
        "packed",
        zarr_times([30, -1, 45], units="ms", _FillValue=-1, scale_factor=10.0),
        GREY[[0, 2]],
        times_s=[0.0, 0.15],
    ),
    Cell("zarr", "dates by xarray, 2", xarray_zarr(DATES, 2), GREY, times_s=TIMES),
    Cell("zarr", "dates by xarray, 3", xarray_zarr(DATES, 3), GREY, times_s=TIMES),
    Cell("zarr", "missing date", xarray_zarr(MISSING, 3), GREY[[0, 2]], times_s=[0.0, 0.15]),
    Cell(
        "zarr", "beside the array", zarr_group(NESTED), GREY, times_s=TIMES, options={"dataset": "entry/film"}
    ),
    Cell(
        "zarr",
        "index of frames",
        zarr_group({"frames": (GREY, {"dims": ("frame", "y", "x")}), "frame": (STEPS, {})}),
        GREY,
        times_s=[],
    ),
    Cell(
        "zarr",
        "t with a unit",
        zarr_group({"frames": (GREY, {"dims": ("t", "y", "x")}), "t": (STEPS, {"units": "ms"})}),
        GREY,
        times_s=TIMES,
    ),
    Cell(
        "zarr",
        "t without",
        zarr_group({"frames": (GREY, {"dims": ("t", "y", "x")}), "t": (STEPS, {})}),
        GREY,
        times_s=[],
    ),
    Cell(
        "zarr",
        "other length",
        zarr_group({"frames": (GREY, {}), "time": (np.arange(7.0), {})}),
        GREY,
        times_s=[],
        logged="is ignored",
    ),
    Cell("zarr", "rate", zarr_group({"frames": (GREY, {})}, fps=120.0), GREY, fps=120.0),
    Cell("zarr", "no rate", zarr_array(GREY), GREY, times_s=[]),
]

ARRAYS = [
    Cell("npy", "no rate", npy(GREY), GREY, times_s=[]),
    Cell("npz", "seconds", npz(frames=GREY, time=np.array(TIMES)), GREY, times_s=TIMES),
    Cell("npz", "dates", npz(frames=GREY, time=DATES), GREY, times_s=TIMES),
    Cell("npz", "missing date", npz(frames=GREY, times=MISSING), GREY[[0, 2]], times_s=[0.0, 0.15]),
    Cell(
        "npz",
        "unit by option",
        npz(frames=GREY, time=STEPS),
        GREY,
        times_s=TIMES,
        options={"time_unit": "ms"},
    ),
    Cell("npz", "ignored", npz(frames=GREY, time=STEPS), GREY, times_s=[], options={"ignore_times": True}),
    Cell("npz", "backwards", npz(frames=GREY, time=STEPS[::-1]), refused="runs backwards at frame 1"),
    Cell(
        "npz",
        "other length",
        npz(frames=GREY, time=np.arange(5.0)),
        refused=r"3 frames, but times of the shape \(5,\)",
    ),
]

IMAGEJ = {"imagej": True}
OME = {"ome": True, "photometric": "minisblack"}
DELTA_T = {"axes": "TYX", "Plane": {"DeltaT": [1000.0, 1050.0, 1150.0], "DeltaTUnit": ["ms"] * 3}}

TIFF = [
    Cell("tiff", "no rate", tiff(GREY, photometric="minisblack"), GREY, times_s=[]),
    Cell("tiff", "ImageJ", tiff(GREY, **IMAGEJ, metadata={"axes": "TYX", "finterval": 0.05}), GREY, fps=20.0),
    Cell(
        "tiff",
        "ImageJ ms",
        tiff(GREY, **IMAGEJ, metadata={"axes": "TYX", "finterval": 50, "tunit": "ms"}),
        GREY,
        fps=20.0,
    ),
    Cell(
        "tiff",
        "OME",
        tiff(GREY, **OME, metadata={"axes": "TYX", "TimeIncrement": 50, "TimeIncrementUnit": "ms"}),
        GREY,
        fps=20.0,
    ),
    Cell("tiff", "OME, each frame", tiff(GREY, **OME, metadata=DELTA_T), GREY, times_s=TIMES),
    Cell(
        "tiff",
        "OME, each frame, zlib",
        tiff(GREY, **OME, metadata=DELTA_T, compression="zlib"),
        GREY,
        times_s=TIMES,
    ),
    Cell(
        "tiff",
        "ignored",
        tiff(GREY, **OME, metadata=DELTA_T),
        GREY,
        times_s=[],
        options={"ignore_times": True},
    ),
]

PICTURES = [
    Cell("png", "no rate", pictures(".png", GREY), GREY, times_s=[]),
    Cell("jpeg", "no rate", pictures(".jpg", GREY, quality=100), GREY, times_s=[], tolerance=2),
    Cell("bmp", "no rate", pictures(".bmp", GREY), GREY, times_s=[]),
    Cell("pgm", "no rate", pictures(".pgm", GREY), GREY, times_s=[]),
]

PALETTE = [(v, v, v) for v in range(256)]

VIDEO = [
    Cell("video", "variable rate", video(GREY, rate=1000, pts=[40, 90, 190]), GREY, times_s=TIMES),
    Cell(
        "video",
        "ignored",
        video(GREY, rate=1000, pts=[40, 90, 190]),
        GREY,
        times_s=[],
        options={"ignore_times": True},
    ),
    Cell(
        "video", "rate of AVI", avi(GREY, palette=PALETTE, rate=25), GREY, fps=25.0, times_s=[0.0, 0.04, 0.08]
    ),
    Cell("video", "main header of AVI", avi(GREY, palette=PALETTE, rate=0), GREY, fps=20.0),
]

HDF5 = [
    Cell("hdf5", "seconds", hdf5({"frames": (GREY, {}), "time": (np.array(TIMES), {})}), GREY, times_s=TIMES),
    Cell("hdf5", "ms", hdf5({"frames": (GREY, {}), "time": (STEPS, {"units": "ms"})}), GREY, times_s=TIMES),
    Cell(
        "hdf5",
        "unit by option",
        hdf5({"frames": (GREY, {}), "time": (STEPS, {})}),
        GREY,
        times_s=TIMES,
        options={"time_unit": "ms"},
    ),
    Cell("hdf5", "no rate", hdf5({"frames": (GREY, {})}), GREY, times_s=[]),
    Cell("hdf5", "rate", hdf5({"frames": (GREY, {})}, fps=120.0), GREY, fps=120.0),
    Cell(
        "hdf5", "backwards", hdf5({"frames": (GREY, {}), "time": (STEPS[::-1], {})}), refused="runs backwards"
    ),
]

CELLS = [*HDF5, *ZARR, *ARRAYS, *TIFF, *PICTURES, *VIDEO]


@parametrized(CELLS)
def test_times(cell: Cell, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Times are in seconds from the first frame; what the file does not state is refused or left out."""
    check(cell, tmp_path, caplog)


@pytest.mark.parametrize("write", [avi(GREY, palette=PALETTE, rate=0, microseconds=0)])
def test_a_video_without_a_rate_has_none(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Where FFmpeg would invent 25 frames per second, there is no rate and there are no times."""
    source = open_source(write(tmp_path))
    assert source.fps is None
    assert [chunk.times_s for chunk in source.chunks(3)] == [None]


def test_y4m_without_a_rate_has_none(tmp_path: Path) -> None:
    """YUV4MPEG with the rate 0:0, for unknown, has no rate."""
    head = b"YUV4MPEG2 W32 H24 F%b Ip A1:1 Cmono\n"
    for rate, expected in ((b"0:0", None), (b"30:1", 30.0)):
        path = tmp_path / "a.y4m"
        path.write_bytes(head % rate + b"".join(b"FRAME\n" + frame.tobytes() for frame in GREY))
        assert open_source(path).fps == expected


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_times_never_run_backwards(tmp_path: Path, name: str, b_frames: str) -> None:
    """H.264 with B frames: equal steps in each container, also in AVI, which stores the order of decoding."""
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no H.264 encoder")
    frames = np.repeat(GREY, 12, axis=0)
    path = video(frames, name, "libx264", "yuv420p", options={"bf": b_frames, "crf": "10"})(tmp_path)
    times = np.concatenate([chunk.times_s for chunk in open_source(path).chunks(7)])
    np.testing.assert_allclose(times, np.arange(36) / 20, atol=2e-3)


def test_joined_files_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """Times that start again continue, with one warning; a frame without a time follows the one before."""
    given = [0.0, 0.1, 0.2, None, 0.4] * 3
    items = [(k, time) for k, time in enumerate(given)]
    found = list(in_order("a.ts", items, 10.0))
    assert [k for k, _ in found] == list(range(15))
    np.testing.assert_allclose([time for _, time in found], np.arange(15) / 10)
    assert caplog.text.count("a.ts: the times start again after 0.400 s") == 1


def test_frames_before_damage_keep_their_times() -> None:
    """If the decoder fails, the frames that wait for their times are still delivered, and then the error."""

    def damaged() -> Any:
        yield from [(0, 0.0), (1, 0.2), (2, 0.1)]
        raise ConfigError("damaged")

    found = in_order("a.avi", damaged(), 10.0)
    assert [next(found) for _ in range(3)] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    with pytest.raises(ConfigError, match="damaged"):
        next(found)


def test_an_interlaced_video_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frames of two half pictures are kept, and a warning states that their rows differ in time."""
    if "mpeg2video" not in av.codecs_available:
        pytest.skip("this PyAV has no MPEG-2 encoder")
    flags = {"flags": "+ildct+ilme"}
    path = video(
        np.repeat(GREY, 2, 1).repeat(2, 2), "a.mpg", "mpeg2video", "yuv420p", options=flags, rate=25
    )(tmp_path)
    open_source(path)
    assert "is interlaced" in caplog.text


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("ms", 1e-3),
        ("MS", None),
        ("Milliseconds", 1e-3),
        ("s", 1.0),
        ("S", None),
        ("m", None),
        ("months since 2025-01-01", None),
        (3, None),
    ],
)
def test_units(unit: Any, length: float | None) -> None:
    """Units are those of CF and SI; unclear ones are not guessed."""
    assert unit_seconds(unit) == length


def test_nanoseconds_since_1970_keep_their_digits() -> None:
    """Integers beyond the digits of a double differ exactly, and NaT of pandas is a missing time."""
    stamps = np.array([1_740_000_000_000_000_001, np.iinfo(np.int64).min, 1_740_000_000_000_000_003])
    times = seconds("a", stamps, "ns")
    np.testing.assert_allclose(times, [0.0, np.nan, 2e-9], rtol=1e-12)


@pytest.mark.parametrize("stamps", [1.7e12 + 50.0 * np.arange(3), 1_700_000_000_000_000_000 + np.arange(3)])
def test_numbers_too_large_for_seconds(stamps: np.ndarray) -> None:
    """Times without a unit that are ms or ns since 1970 are refused with the option that states the unit."""
    with pytest.raises(ConfigError, match=r"without a unit, up to 1.7e.*--time-unit"):
        seconds("a", stamps)
    assert np.diff(seconds("a", stamps, stated_unit="ms"))[0] == pytest.approx((stamps[1] - stamps[0]) / 1000)
    np.testing.assert_array_equal(np.diff(seconds("a", np.array([1.7e9, 1.7e9 + 1.0]))), 1.0)
