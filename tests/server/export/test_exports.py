"""Exports of a real growth, each opened by the library that its users have; hostile names and bad requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray
from PIL import Image

from atomstream import RHEEDStreamer
from atomstream.server.export.pictures import CAPTION_PX, _binned
from atomstream.sources import GrowthSpec
from atomstream.testing import LocalServer, SimulatedCamera, running_server
from tests.cli.commands import atomstream_here

FPS = 30.0
N = 480
NAME = '=HYPERLINK("x") $growth$ 7 / Ga\u202eN'


@dataclass(frozen=True)
class Grown:
    """A finished stream on a running server."""

    server: LocalServer
    data_id: str
    frames: np.ndarray
    folder: Path

    def export(self, name: str, *options: str) -> Path:
        """Export the stream by the command; returns the file."""
        target = self.folder / name
        done = atomstream_here(
            "export",
            self.data_id,
            "--to",
            target,
            *options,
            ATOMSTREAM_ENDPOINT=self.server.url,
            ATOMSTREAM_API_KEY=self.server.api_key,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not target.with_name(f"{name}.part").exists()
        return target

    def refused(self, name: str, *options: str, data_id: str | None = None) -> str:
        """The error of an export that fails; nothing is left behind."""
        done = atomstream_here(
            "export",
            data_id or self.data_id,
            "--to",
            self.folder / name,
            *options,
            ATOMSTREAM_ENDPOINT=self.server.url,
            ATOMSTREAM_API_KEY=self.server.api_key,
        )
        assert done.returncode != 0
        assert not (self.folder / f"{name}.part").exists()
        return done.stderr


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grown]:
    """16 s of growth at 0.8 layers a second, analysed, with marks and a calibration."""
    folder = tmp_path_factory.mktemp("exports")
    spec = GrowthSpec(height=60, width=80, fps=FPS, rate_ml_s=0.8, seed=3)
    frames = SimulatedCamera(spec, n_frames=N).delivered_frames
    with running_server(data_dir=folder / "data") as server:
        settings: dict[str, Any] = {"spool_dir": folder / "spool", "clock_sync": False}
        with RHEEDStreamer(server.api_key, server.url, **settings) as streamer:
            data_id = streamer.initialize(FPS, 0.0, 60, NAME, "STO-1", tags=["night"])
            streamer.calibrate(data_id, layer_thickness_nm=0.39)
            streamer.set_attributes(data_id, {"camera": "sim"})
            for k in range(N // 60):
                streamer.push(data_id, k, frames[60 * k : 60 * k + 60], capture_start_ms_utc=1.7e12 + 2e3 * k)
            streamer.mark(data_id, "Ga open", "shutter", 1.7e12 + 2000.0)
            streamer.mark(data_id, '@cmd, "quoted"', "note", 1.7e12 + 4000.0)
            streamer.finalize(data_id)
            for _ in streamer.results(data_id):
                pass
        made = Grown(server, data_id, frames, folder)
        made.export("first.csv")  # starts the server's thread for exports, which lasts as long as the server
        yield made


def test_nexus(grown: Grown) -> None:
    """h5py reads frames, times, results, marks, segments and the calibration; NeXus' default plot is the frames."""
    with h5py.File(grown.export("growth.h5")) as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        assert data.attrs["signal"] == "frames"
        np.testing.assert_array_equal(data["frames"][:], grown.frames)
        np.testing.assert_allclose(data["time"][:], np.arange(N) / FPS, atol=1e-3)
        assert entry["title"].asstr()[()] == NAME
        assert entry["sample/name"].asstr()[()] == "STO-1"
        assert json.loads(entry["attributes_json"].asstr()[()]) == {"camera": "sim"}
        assert entry["results/growth_rate_ml_s"].attrs["units"] == "1/s"
        assert entry["results/growth_rate_ml_s"].shape == (N,)
        assert entry["calibration/layer_thickness_nm"][()] == 0.39
        assert list(entry["events/label"].asstr()[:]).count("Ga open") == 1
        rate = entry["final_values/growth_rate_ml_s"]
        assert abs(rate[()] - 0.8) < 0.02
        assert rate.attrs["sigma"] > 0
        assert len(entry["segments/number"]) >= 1
        assert entry["instrument/detector"].attrs["NX_class"] == "NXdetector"


def test_netcdf(grown: Grown) -> None:
    """xarray opens it with dimensions and coordinates."""
    with xarray.open_dataset(grown.export("growth.nc"), engine="h5netcdf") as growth:
        assert growth["frames"].dims == ("time", "y", "x")
        np.testing.assert_array_equal(growth["frames"].values, grown.frames)
        assert growth["specular_intensity"].dims == ("time",)
        assert growth["time"].attrs["units"] == "s"
        assert growth.attrs["sample"] == "STO-1"
        assert {one["label"] for one in json.loads(growth.attrs["events_json"])} >= {"Ga open"}


def test_every_second_frame_and_results_alone(grown: Grown) -> None:
    """``--step`` and ``--no-pixels`` choose what is written."""
    with h5py.File(grown.export("half.nxs", "--step", "2")) as file:
        np.testing.assert_array_equal(file["entry/data/frames"][:], grown.frames[::2])
        np.testing.assert_array_equal(file["entry/results/frame"][:], np.arange(0, N, 2))
    with h5py.File(grown.export("results.h5", "--no-pixels")) as file:
        assert file["entry/data"].attrs["signal"] == "specular_intensity"
        assert "frames" not in file["entry/data"]


def test_csv(grown: Grown) -> None:
    """pandas reads it without options: numbers are numbers, times are UTC, marks and segments have their rows."""
    table = pd.read_csv(grown.export("growth.csv"))
    assert len(table) == N
    assert table["frame"].tolist() == list(range(N))
    stamps = pd.to_datetime(table["time_utc"])
    assert str(stamps.dt.tz) == "UTC"
    assert stamps[60].timestamp() == pytest.approx(1.7e9 + 2.0, abs=2e-3)
    assert table["specular_intensity [counts]"].dtype == np.float64
    both = table[["growth_rate_ml_s [1/s]", "growth_rate [nm/s]"]].dropna()
    assert len(both) > 0
    np.testing.assert_allclose(both.iloc[:, 1], both.iloc[:, 0] * 0.39, rtol=1e-6)
    marks = table["marks"].dropna()
    assert marks.to_dict() == {60: "Ga open", 120: '\'@cmd, "quoted"'}
    assert table["segment"].iloc[100] >= 0


@pytest.mark.parametrize("big", [False, True])
def test_tiff(grown: Grown, monkeypatch: pytest.MonkeyPatch, big: bool) -> None:
    """Every pixel, for tifffile and for readers that follow the pages; offsets have 64 bits where 32 are too few."""
    monkeypatch.setattr("atomstream.server.export.tiff.PAGES", 100)
    if big:
        monkeypatch.setattr("atomstream.server.export.tiff.CLASSIC_BYTES", 0)
    path = grown.export(f"growth-{big}.tiff")
    with tifffile.TiffFile(path) as stack:
        assert (stack.is_bigtiff, len(stack.pages), stack.series[0].axes) == (big, N, "TYX")
        np.testing.assert_array_equal(stack.asarray(), grown.frames)
        for page in (0, 1, 99, 100, 101, N - 1):
            np.testing.assert_array_equal(stack.pages[page].asarray(), grown.frames[page])
    with Image.open(path) as pages:
        pages.seek(N - 1)
        np.testing.assert_array_equal(np.asarray(pages), grown.frames[-1])


@pytest.mark.parametrize("name", ["growth.mp4", "growth.gif"])
def test_films(grown: Grown, name: str) -> None:
    """The video has the length of the growth, changes with it, and a caption below the picture."""
    import av

    with av.open(str(grown.export(name))) as film:
        pictures = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
        seconds = len(pictures) / (25 if name.endswith("mp4") else 10)
    assert seconds == pytest.approx(N / FPS, rel=0.25)
    assert pictures[0].shape[1] == 80
    assert pictures[0][62:].max() > 100, "no caption"
    assert pictures[0][62:].min() < 60
    assert np.abs(pictures[0][:60].astype(int) - pictures[len(pictures) // 3][:60]).mean() > 0.5


def test_large_frames_are_binned_for_a_film(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of a video have a largest size, because its encoder keeps many of them."""
    import av

    monkeypatch.setattr("atomstream.server.export.pictures.MOST_SIDE", 40)
    with av.open(str(grown.export("small.mp4"))) as film:
        picture = next(frame.to_ndarray(format="gray") for frame in film.decode(video=0))
    assert picture.shape == (30 + CAPTION_PX, 40)
    monkeypatch.setattr("atomstream.server.export.pictures.GIF_BYTES", 1 << 16)
    with av.open(str(grown.export("small.gif"))) as film:
        pictures = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
    height, width = pictures[0].shape
    assert 0 < len(pictures) * (height - CAPTION_PX) * width < 1 << 17
    means = _binned(np.arange(60, dtype=np.uint8).reshape(4, 15), 2)
    np.testing.assert_array_equal(means[1], [38, 40, 42, 44, 46, 48, 50])
    assert _binned(np.zeros((1, 9), np.uint16), 4).shape == (1, 2)


def test_report(grown: Grown) -> None:
    """Two pages, with the name as the title; dollar signs and control characters in names do no harm."""
    content = grown.export("report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") == 2


def test_snapshot(grown: Grown) -> None:
    """A PNG of the frame at a time, or of the newest one, whose pixels are not distorted: black where it is black."""
    with (
        Image.open(grown.export("newest.png")) as newest,
        Image.open(grown.export("first.png", "--at", "0")) as first,
    ):
        assert newest.size == first.size
        assert newest.size[0] == 1200
        found = [np.asarray(one.convert("L")).astype(int) for one in (newest, first)]
    assert np.abs(found[0] - found[1]).mean() > 0.3  # the growth has gone on
    assert "The stream has no frames" not in grown.refused("late.png", "--at", "nan")


def test_what_is_refused(grown: Grown) -> None:
    """Each refusal is a sentence, and leaves neither a file nor a part of one."""
    assert "one of h5" in grown.refused("growth.xls")
    assert "is known here" in grown.refused("none.h5", data_id="7d3c4a0e-5a56-4b7e-9b1f-5d6f4c1e2a90")
    (grown.folder / "taken.csv").touch()
    assert "--force" in grown.refused("taken.csv")
    assert grown.export("taken.csv", "--force").stat().st_size > 0


def test_nothing_is_left_on_the_server(grown: Grown) -> None:
    """The server's temporary files are gone."""
    grown.export("again.csv")
    while list((grown.folder / "data" / "exports").iterdir()):
        time.sleep(0.01)  # the server removes it after the last byte; the limit is the timeout of the test


def test_a_stream_without_frames(grown: Grown) -> None:
    """Tables are empty, videos are refused with the reason, and the report states that there are no frames."""
    settings: dict[str, Any] = {"spool_dir": grown.folder / "spool2", "clock_sync": False}
    with RHEEDStreamer(grown.server.api_key, grown.server.url, **settings) as streamer:
        empty = streamer.initialize(FPS, 0.0, 60)
    none = Grown(grown.server, empty, grown.frames[:0], grown.folder)
    assert len(pd.read_csv(none.export("empty.csv"))) == 0
    assert none.export("empty.pdf").stat().st_size > 1000
    with h5py.File(none.export("empty.h5")) as file:
        assert len(file["entry/results/time"]) == 0
    assert "no frames" in none.refused("empty.mp4")
    assert "no frames" in none.refused("empty.tiff")


def test_a_disk_without_space(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that would fill the disk is refused before it begins: running streams need the space."""
    monkeypatch.setattr("atomstream.server.routes.export.KEPT_FREE_BYTES", 1 << 60)
    assert "pixels=0" in grown.refused("large.h5")
    assert grown.export("small.csv").stat().st_size > 0
