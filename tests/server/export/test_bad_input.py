"""Exports of streams with hostile texts, onto full disks, and of streams that are deleted meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import h5py
import msgspec
import numpy as np
import pandas as pd
import pytest
import tifffile
import xarray
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from atomstream import plot_fonts
from atomstream.results import Event
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.archive.metadata import NamedId, read_about
from atomstream.server.export import report
from atomstream.server.export.formats import FORMATS, write_export
from atomstream.server.export.growth import Growth
from atomstream.server.live.annotation_records import CalibrationRecord
from atomstream.server.live.messages import MeasurementRecord, SegmentRecord
from atomstream.server.routes import export as export_route
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames

HOSTILE = (
    "\x00\x1b[2J $\\frac{ $ %n {0} {x.__class__} <script>alert(1)</script> 成長 😀 \u202e\ufffe ../../etc/passwd\r\n"
    "=HYPERLINK(1)"
)
ENDINGS = [name for name in FORMATS if name not in ("tif", "nxs")]  # the same as tiff and h5
MARKS = 5000


async def growth_of(server: LiveServer, client: WireClient) -> Growth:
    """A stream with a few frames as the exports read it."""
    data_id = await client.create("Growth")
    await client.send(data_id, 0, make_frames(4))
    archive = await server.context.streams.archive(data_id)
    status = await (await server.context.results.of(data_id)).status()
    return Growth(read_about(archive.about), status, archive, ColumnReader(), archive.frame_runs())


def hostile(growth: Growth) -> Growth:
    """The same stream with hostile texts wherever a user may give one, and with thousands of marks and segments."""
    about = msgspec.structs.replace(
        growth.metadata,
        name=HOSTILE,
        sample=NamedId("s", HOSTILE),
        project=NamedId("p", HOSTILE),
        tags=(NamedId("t", HOSTILE),),
        azimuth_label=HOSTILE,
        attributes={"camera": HOSTILE},
    )
    times = np.linspace(-1e6, 1e6, MARKS - 1).tolist()  # marks may lie before and after the frames
    marks = [
        Event(t, HOSTILE[:20], f"={t} {HOSTILE}", by="user", id=str(t), unit=HOSTILE[:9])
        for t in (*times, 0.01)
    ]
    segment = msgspec.convert(
        {
            "number": 1,
            "start_s": -5.0,
            "end_s": 1e9,
            "label": HOSTILE,
            "rate": {"value": 1.0, "sigma": 1e-300, "unit": HOSTILE, "why": "", "note": HOSTILE},
            "cycles": 1.0,
            "counted": {"value": None, "sigma": None, "unit": "", "why": HOSTILE, "note": ""},
            "recovery": {"value": None, "sigma": None, "unit": "", "why": HOSTILE, "note": ""},
        },
        SegmentRecord,
    )
    status = msgspec.structs.replace(
        growth.status,
        events=sorted(marks, key=lambda one: one.at_s),
        segments=[segment] * 1000,
        values={"growth_rate_nm_s": MeasurementRecord(1.0, 0.1, HOSTILE, HOSTILE, HOSTILE)},
        calibration=CalibrationRecord(layer_thickness_nm=0.3, layer_unit=HOSTILE),
    )
    return replace(growth, metadata=about, status=status)


async def test_hostile_texts(serve: Serve, tmp_path: Path) -> None:
    """Each format is written and read again; texts harm no reader, and 5000 marks cost no more than a few."""
    server = await serve()
    async with WireClient(server) as client:
        growth = hostile(await growth_of(server, client))
        made = {ending: tmp_path / f"growth.{ending}" for ending in ENDINGS}
        for ending, path in made.items():
            write_export(growth, ending, path)
            assert path.stat().st_size > 100, ending
    with h5py.File(made["h5"]) as file:
        title, label = file["entry/title"].asstr()[()], file["entry/events/label"].asstr()[0]
        assert file["entry/events/label"].shape == (MARKS,)
        assert title == HOSTILE.replace("\0", " ")
        assert label.endswith(title)
    with xarray.open_dataset(made["nc"], engine="h5netcdf", decode_times=False) as opened:
        assert opened.attrs["title"] == HOSTILE.replace("\0", " ")
        assert len(msgspec.json.decode(opened.attrs["events_json"])) == MARKS
    marks = pd.read_csv(made["csv"])["marks"].dropna()
    assert all(mark.startswith("'=") and mark.isprintable() for mark in marks)
    with tifffile.TiffFile(made["tiff"]) as stack:
        assert stack.asarray().shape == (4, *make_frames(4).shape[1:])


async def test_a_stream_that_grows_meanwhile(serve: Serve, tmp_path: Path) -> None:
    """Frames that are stored while an export runs are in none of its parts."""
    server = await serve()
    async with WireClient(server) as client:
        growth = await growth_of(server, client)
        await client.send(growth.metadata.data_id, 1, make_frames(4))
    assert growth.archive.frames_stored() == 8
    for ending in ("h5", "tiff", "csv"):
        write_export(growth, ending, tmp_path / f"growth.{ending}")
    with h5py.File(tmp_path / "growth.h5") as file:
        assert len(file["entry/data/frames"]) == len(file["entry/results/time"]) == 4
    assert len(tifffile.imread(tmp_path / "growth.tiff")) == 4
    assert len(pd.read_csv(tmp_path / "growth.csv")) == 4


async def test_a_name_in_a_font_of_the_system(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chinese characters where the computer has a font for them; a box that is explained where it has none any more."""
    server = await serve()
    async with WireClient(server) as client:
        plain = await growth_of(server, client)
    growth = replace(plain, metadata=msgspec.structs.replace(plain.metadata, name="Wafer 基板"))
    monkeypatch.setattr(plot_fonts, "MORE_FONTS", ("A font for one test",))
    known, font = [*font_manager.fontManager.ttflist], tmp_path / "font.ttf"
    try:
        for step in ("no font", "installed", "removed"):
            if step == "installed":
                font_manager.fontManager.addfont(make_font(font, plot_fonts.MORE_FONTS[0], "基板"))
            if step == "removed":
                font.unlink()
            for ending in ("pdf", "png"):
                write_export(growth, ending, tmp_path / f"report.{ending}")
            written = (tmp_path / "report.pdf").read_bytes()
            assert (b"Afontforonetest" in written) is (step == "installed")
            assert "Wafer 基板".encode("utf-16-be") in written  # the title, in the file's metadata
            page = Figure(figsize=report.A4_INCHES)
            with report.styled():
                report._first_page(page, growth, report._Curves.of(growth))
            texts = [text.get_text() for text in page.texts]
            assert texts[0] == ("Wafer 基板" if step == "installed" else "Wafer ▯▯")
            assert any("no font of the server has" in text for text in texts) is (step != "installed")
    finally:
        font_manager.fontManager.ttflist[:] = known


def make_font(path: Path, name: str, characters: str) -> Path:
    """A TrueType font in which each of the characters is a square."""
    glyphs = {ord(char): f"square{k}" for k, char in enumerate(characters)}
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (100, 0)), (pen.lineTo, (100, 800)), (pen.lineTo, (900, 800))):
        move(point)
    pen.closePath()
    square = pen.glyph()
    order = [".notdef", *glyphs.values()]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(order)
    font.setupCharacterMap(glyphs)
    font.setupGlyf(dict.fromkeys(order, square))
    font.setupHorizontalMetrics(dict.fromkeys(order, (1000, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": name, "styleName": "Regular", "psName": name.replace(" ", "")})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
async def test_each_format_on_a_full_disk(serve: Serve, tmp_path: Path) -> None:
    """The error is that of the disk. HDF5 closes its file in spite of it: else it would crash the process later."""
    server = await serve()
    async with WireClient(server) as client:
        growth = await growth_of(server, client)
    for ending in ENDINGS:
        path = tmp_path / f"growth.{ending}"
        path.symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left on device") as failed:
            write_export(growth, ending, path)
        assert failed.value.errno == errno.ENOSPC


async def test_an_export_leaves_room(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export ends with a sentence, and its part is removed, before the disk is full and when it is."""
    server = await serve()
    exports = server.data_dir / "exports"
    async with WireClient(server) as client:
        data_id = (await growth_of(server, client)).metadata.data_id
        path = f"/rheed/stream/{data_id}/export"

        def fail(*_: Any, **__: Any) -> None:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

        with monkeypatch.context() as patch:
            patch.setattr(export_route, "write_export", fail)
            status, reply = await client.ask("GET", f"{path}?to=csv")
        assert status == 507
        assert f"Stream {data_id} is unchanged" in reply["detail"]
        with monkeypatch.context() as patch:
            patch.setattr(export_route, "SMALL_BYTES", -1)
            patch.setattr(export_route, "KEPT_FREE_BYTES", 1 << 60)
            status, reply = await client.ask("GET", f"{path}?to=csv")
        assert status == 507
        assert "no room for this export" in reply["detail"]
        assert list(exports.iterdir()) == []


@pytest.mark.parametrize("ending", ["csv", "h5", "mp4", "pdf"])
async def test_a_stream_that_is_deleted_while_it_is_exported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """The export ends with 410, and leaves nothing. Nothing of the server is in the way of the next one."""
    server = await serve()
    reached, go = threading.Event(), threading.Event()
    check = export_route._check_going_on

    noticed = threading.Event()

    def held(*arguments: Any) -> None:
        reached.set()
        assert go.wait(60.0)
        if noticed.is_set():
            check(*arguments)

    monkeypatch.setattr(export_route, "_check_going_on", held)
    async with WireClient(server) as client:
        for noted in (True, False):  # before a piece; and not before the files are gone, while it is read
            (noticed.set if noted else noticed.clear)()
            data_id = (await growth_of(server, client)).metadata.data_id
            reached.clear()
            go.clear()
            asked = asyncio.create_task(client.ask("GET", f"/rheed/stream/{data_id}/export?to={ending}"))
            await asyncio.to_thread(reached.wait, 60.0)
            assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
            await server.context.deletion.wait()
            go.set()
            status, reply = await asked
            assert (status, "was deleted" in reply["detail"]) == (410, True)
        assert list((server.data_dir / "exports").iterdir()) == []


async def test_a_stream_that_is_deleted_while_it_is_shown(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The live picture of a deleted stream ends; later requests of the page are answered with 410, without a log."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = (await growth_of(server, client)).metadata.data_id
        url = f"{server.url}/dashboard/streams/{data_id}/pictures"
        async with client.session.ws_connect(url) as shown:
            await shown.send_str("{}")
            assert (await shown.receive()).type is aiohttp.WSMsgType.BINARY
            await shown.send_str("{}")
            assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
            while (await shown.receive()).type is aiohttp.WSMsgType.BINARY:
                await shown.send_str("{}")
            assert shown.close_code == aiohttp.WSCloseCode.GOING_AWAY
        for path in ("picture", "series?name=specular_intensity"):
            status, _ = await client.ask("GET", f"/dashboard/streams/{data_id}/{path}")
            assert status == 410, path
    assert [
        record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")
    ] == []


def test_the_columns_of_facts_in_a_report_do_not_overlap() -> None:
    """A long id, and a value that is undetermined for a long reason, end before the next column begins."""
    page = Figure(figsize=report.A4_INCHES)
    whys = {"Growth rate": "needs the thickness of a layer, which is not set"}
    rows = [
        ("Stream", "551f4693-ccbe-46ba-8939-299d9ac6535a"),
        ("Growth rate", "undetermined"),
        ("Sample", "AlGaN superlattice, second wafer " * 3),
    ]
    report._lines(page, 0.08, 0.90, rows, whys)
    values = [text for text in page.texts if text.get_position()[0] > 0.2]
    assert [text.get_text()[:8] for text in values] == ["551f4693", "undeterm", "needs th", "AlGaN su"]
    heights = [text.get_position()[1] for text in values]
    assert heights == sorted(heights, reverse=True)
    assert values[2].get_text() == whys["Growth rate"]
    ends = [text.get_window_extent().x1 for text in values]
    assert all(end <= (0.08 + report.COLUMN + 0.025) * page.bbox.width for end in ends)
    assert values[0].get_text() == rows[0][1]
