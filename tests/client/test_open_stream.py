"""``open_stream``, ``compare`` and what a notebook shows, from an archive on disk and from a server."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot
import numpy as np
import pytest
import xarray

import atomstream
from atomstream import Client, RHEEDStreamer, compare, open_stream
from atomstream.errors import ConfigError, NotFoundError
from atomstream.html import MOST_ROWS, Report, events, table
from atomstream.plots import plot_columns
from atomstream.results import Event
from tests.live_server import ThreadedServer
from tests.scripts import run_python
from tests.server.archive.archive_helpers import ABOUT, commit, frames_of, new_archive

FPS = 60.0
CHUNK = 40
NO_ID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
        mpl.pyplot.close("all")


@pytest.fixture
def server(serve_in_thread: Callable[..., ThreadedServer]) -> ThreadedServer:
    return serve_in_thread()


def film(n: int = 3 * CHUNK) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 24, 32), np.uint8)


def send(server: ThreadedServer, spool: Path, name: str, mark_s: float, skip: int | None = None) -> str:
    """A stream with a shutter mark at ``mark_s``; returns its id when it is analysed."""
    start = 1.7e12
    with RHEEDStreamer(server.api_key, server.url, spool_dir=spool, clock_sync=False) as streamer:
        with pytest.warns(UserWarning, match="chunk_size"):
            data_id = streamer.initialize(FPS, 0.0, CHUNK, name)
        for index in range(3):
            if index != skip:
                part = film()[index * CHUNK : (index + 1) * CHUNK]
                streamer.push(data_id, index, part, start + 1e3 * index * CHUNK / FPS)
        streamer.mark(data_id, "Ga open", "shutter", start + 1e3 * mark_s)
        streamer.finalize(data_id)
        for _ in streamer.results(data_id):
            pass
    return data_id


@pytest.fixture
def growth(server: ThreadedServer, tmp_path: Path) -> str:
    return send(server, tmp_path / "spool", "growth", 0.5)


def test_disk_and_server_give_the_same(server: ThreadedServer, growth: str) -> None:
    """Frames, times, results and marks are equal, whether they come from the archive or from the server."""
    folder = server.data_dir / "streams" / growth
    local = open_stream(folder)
    with open_stream(growth, api_key=server.api_key, endpoint=server.url) as remote:
        for opened in (local, open_stream(str(folder / "frames.zarr")), remote):
            np.testing.assert_array_equal(opened["frames"].values, film())
            np.testing.assert_array_equal(opened["frames"][7, 2:9, 4].values, film()[7, 2:9, 4])
            np.testing.assert_array_equal(
                opened["frames"][30:90:7, 3, [1, 4]].values, film()[30:90:7, 3][:, [1, 4]]
            )
            np.testing.assert_allclose(opened["frames"].mean(("y", "x")), film().mean(axis=(1, 2)))
            assert (opened["frames"].attrs["units"], opened["time"].attrs["units"]) == ("counts", "s")
            assert opened["frame"].values.tolist() == list(range(3 * CHUNK))
            assert [str(label) for label in opened["mark_label"].values] == ["Ga open"]
            assert opened["saturated_fraction"].attrs["long_name"]
            assert opened.attrs["name"] == "growth"
        np.testing.assert_array_equal(remote["time"], local["time"])
        np.testing.assert_array_equal(remote["saturated_fraction"], local["saturated_fraction"])


@pytest.mark.filterwarnings("ignore:Stream .* ended with:RuntimeWarning")
def test_frames_that_never_arrived_are_left_out(server: ThreadedServer, tmp_path: Path) -> None:
    """A hole has neither frames nor times; the others keep their numbers."""
    data_id = send(server, tmp_path / "spool", "hole", 0.1, skip=1)
    there = [*range(CHUNK), *range(2 * CHUNK, 3 * CHUNK)]
    with open_stream(data_id, api_key=server.api_key, endpoint=server.url) as remote:
        for opened in (open_stream(server.data_dir / "streams" / data_id), remote):
            assert opened["frame"].values.tolist() == there
            np.testing.assert_array_equal(opened["frames"].values, film()[there])


def test_a_thinned_stream(tmp_path: Path) -> None:
    """Removed frames are left out, or are black with their results: an argument decides."""
    archive = new_archive(tmp_path)
    for index in range(3):
        commit(archive, index)
    archive.thinned.plan(lambda first, n: (first + np.arange(n)) % 3 == 0)
    for index in range(3):
        archive.thinned.remove(index)
    archive.finish()
    whole = np.concatenate([frames_of(index) for index in range(3)])
    kept = open_stream(archive.folder)
    assert kept["frame"].values.tolist() == [0, 3, 6, 9]
    np.testing.assert_array_equal(kept["frames"].values, whole[::3])
    everything = open_stream(archive.folder, with_removed=True)
    assert everything["frame_kept"].values.tolist() == [1, 0, 0] * 4
    np.testing.assert_array_equal(everything["frames"].values[::3], whole[::3])
    assert not everything["frames"].values[1::3].any()


def test_frames_are_read_in_whole_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dask a piece is some whole chunks of the stream; without it nothing is read before it is used."""
    archive = new_archive(tmp_path)
    for index in range(3):
        commit(archive, index)
    assert open_stream(archive.folder)["frames"].chunks == ((12,), (5,), (6,))
    monkeypatch.setattr("atomstream.client.lazy_frames.PIECE_BYTES", 1)
    assert open_stream(archive.folder)["frames"].chunks == ((4, 4, 4), (5,), (6,))
    monkeypatch.setitem(sys.modules, "dask", None)
    lazy = open_stream(archive.folder)["frames"]
    assert lazy.chunks is None
    np.testing.assert_array_equal(lazy[5].values, frames_of(1)[1])


@pytest.mark.parametrize("stream", ["nothing-here", "", "../x", "a1b2c3d4"])
def test_an_invalid_stream(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is neither a folder nor an id is an error that names both possibilities."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"neither a folder with a stream .* nor the id"):
        open_stream(stream)


def test_a_stream_without_frames(tmp_path: Path) -> None:
    """An archive in which no chunk is stored yet has nothing to open."""
    with pytest.raises(ConfigError, match="no chunk of this stream is stored"):
        open_stream(new_archive(tmp_path).folder)


def test_an_unknown_id(server: ThreadedServer) -> None:
    """An id that does not exist on the server is an error with this id."""
    with pytest.raises(NotFoundError, match=NO_ID):
        open_stream(NO_ID, api_key=server.api_key, endpoint=server.url)


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without xarray the error names the extra to install."""
    real = builtins.__import__
    monkeypatch.setitem(sys.modules, "xarray", None)
    monkeypatch.setattr(builtins, "__import__", real)
    with pytest.raises(ImportError, match=r'open_stream needs xarray: pip install "atomstream\[frames\]"'):
        open_stream(tmp_path)


def dataset(
    values: list[float], step_s: float = 1.0, mark_s: float | None = None, **names: str
) -> xarray.Dataset:
    time_s = step_s * np.arange(len(values))
    data = {"rate": ("time", values, {"units": "1/s"})}
    if mark_s is not None:
        data |= {
            "mark_time": ("mark", [mark_s]),
            "mark_kind": ("mark", ["shutter"]),
            "mark_label": ("mark", ["Ga"]),
        }
    return xarray.Dataset(data, {"time": time_s}, names)


def test_compare_growths() -> None:
    """Growths of other lengths and frame rates lie on one time axis, aligned on a mark; gaps stay undetermined."""
    first = dataset([1.0, 2.0, 3.0, 4.0], mark_s=1.0, name="A")
    second = dataset([5.0, np.nan, 7.0], 0.5, mark_s=0.0, name="A")
    found = compare([first, second], "rate", align="shutter", step_s=1.0)
    assert found["growth"].values.tolist() == ["A", "A (2)"]
    np.testing.assert_array_equal(found.values, [[1, 2, 3, 4], [np.nan, 5, 7, np.nan]])
    np.testing.assert_array_equal(found["time"], [-0.5, 0.5, 1.5, 2.5])
    assert found.attrs == {"units": "1/s"}
    assert compare({"best": first}, "rate", align="Ga")["growth"].values.tolist() == ["best"]
    assert found.plot.line(x="time")


def test_compare_streams_of_a_server(
    server: ThreadedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are opened by the login of the environment."""
    monkeypatch.setenv("ATOMSTREAM_ENDPOINT", server.url)
    monkeypatch.setenv("ATOMSTREAM_API_KEY", server.api_key)
    ids = [send(server, tmp_path / "spool", name, mark_s) for name, mark_s in (("one", 0.5), ("two", 1.0))]
    found = compare(ids, "saturated_fraction", align="Ga open")
    assert found["growth"].values.tolist() == ["one", "two"]
    assert float(found["time"][0]) == pytest.approx(-1.0, abs=0.02)
    with pytest.raises(
        ConfigError, match="one has no mark of the kind or text 'As open'; its marks: 'Ga open'"
    ):
        compare(ids, "saturated_fraction", align="As open")


def test_a_chart_with_names_in_any_script() -> None:
    """Characters without a font are boxes that the chart explains, without a warning; labels fit beside the axes."""
    time_s = np.linspace(0.0, 10.0, 50)
    columns = {"specular_intensity": np.sin(time_s), "growth_rate_ml_s": np.full(50, np.nan)}
    names = ["specular_intensity", "growth_rate_ml_s"]
    mark = Event(kind="note", label="Рост \U00013000", by="user", time_s=2.0)
    figure = plot_columns(time_s, columns, names, "Wafer $7$ \U00013000", [mark])
    figure.canvas.draw()
    upper, lower = figure.axes
    assert upper.get_title(loc="left") == r"Wafer \$7\$ ▯"
    assert [text.get_text() for text in upper.texts] == ["Рост ▯"]
    assert "▯: a character that no font" in lower.get_xlabel()
    for axes in figure.axes:
        assert axes.yaxis.label.get_window_extent().height < 1.1 * axes.get_window_extent().height


def test_what_can_not_be_compared() -> None:
    """Errors name the growth and what it has."""
    with pytest.raises(ConfigError, match="no growth to compare"):
        compare([])
    with pytest.raises(ConfigError, match="A has no result 'speed'; it has: rate"):
        compare([dataset([1.0], name="A")], "speed")
    for step in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="step_s is"):
            compare([dataset([1.0, 2.0], name="A")], "rate", step_s=step)


def test_a_stream_in_a_notebook(server: ThreadedServer, growth: str) -> None:
    """A stream has one table of all results, a chart and an HTML view."""
    with Client(server.api_key, server.url) as client:
        data = client.get(growth)
        frame = data.to_pandas()
        assert frame.index.name == "time_seconds"
        assert len(frame) == 3 * CHUNK
        assert frame.attrs["units"]["saturated_fraction"] == "1"
        figure = data.plot("saturated_fraction")
        assert figure.axes[0].get_title(loc="left") == "growth"
        assert [text.get_text() for text in figure.axes[0].texts] == ["Ga open"]
        with pytest.raises(ConfigError, match=r"There is no column speed; there are: .*saturated_fraction"):
            data.plot("speed")
        shown = data._repr_html_()
    assert growth in shown
    assert "undetermined" in shown
    assert "Ga open" in shown


def test_a_batch_in_a_notebook(server: ThreadedServer, growth: str) -> None:
    """Batches of results have a chart and an HTML view."""
    with RHEEDStreamer(server.api_key, server.url, spool_dir=None, clock_sync=False) as streamer:
        batch = next(iter(streamer.results(growth)))
    assert "frames 0-" in batch._repr_html_()
    assert batch.plot("saturated_fraction").axes
    with pytest.raises(ConfigError, match="no values per frame"):
        replace(batch, columns={}).plot()


def test_an_analysis_in_a_notebook() -> None:
    """The result of analyze has a chart and an HTML view."""
    from atomstream.analysis import analyze
    from atomstream.sources import GrowthSpec, Simulator

    found = analyze(Simulator(GrowthSpec(48, 64, 30.0, rate_ml_s=2.0)).frames(0, 120), 30.0)
    assert len(found.plot().axes) == 2
    assert "<caption" in found._repr_html_()


def test_a_report_in_a_notebook() -> None:
    """The report of finalize is a dictionary with an HTML view, in which lost chunks are listed."""
    report = Report(drained=True, chunks_uploaded=3, lost=[])
    assert report == {"drained": True, "chunks_uploaded": 3, "lost": []}
    assert "Every frame is stored" in report._repr_html_()
    lost = Report(drained=True, lost=[(k, "refused <b>") for k in range(MOST_ROWS + 2)])._repr_html_()
    assert "Not everything is stored" in lost
    assert "refused &lt;b&gt;" in lost
    assert "and 2 more" in lost


def test_html_is_escaped() -> None:
    """Names of users can't become markup, in any cell."""
    hostile = "<script>alert(1)</script>\x00"
    for shown in (table(hostile, [(hostile,)], (hostile,)), events([Event(1.0, hostile, hostile)])):
        assert "<script>" not in shown
        assert "\x00" not in shown


def test_a_stream_that_is_never_closed(server: ThreadedServer, growth: str) -> None:
    """A script need not close what it opened: the exit does, without messages."""
    script = f"import atomstream; print(atomstream.open_stream({growth!r})['frames'][0, 0].values.tolist())"
    done = run_python("-c", script, ATOMSTREAM_ENDPOINT=server.url, ATOMSTREAM_API_KEY=server.api_key)
    assert (done.stdout.strip(), done.stderr) == (str(film()[0, 0].tolist()), "")


def test_public_names() -> None:
    """The functions are at the top of the package."""
    assert {"open_stream", "compare"} <= set(dir(atomstream))
    assert ABOUT["fps"] == 100.0
