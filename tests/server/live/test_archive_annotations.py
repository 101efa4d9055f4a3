"""A stream's Zarr group has marks, segments, regions and calibration: a copied archive is complete in itself."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from atomstream.long_names import LONG_NAMES
from atomstream.results import UNITS, Event
from atomstream.server.archive.small_arrays import ROWS, SmallArray, check_content
from atomstream.server.live.annotation_records import CalibrationRecord
from atomstream.server.live.archive_annotations import CALIBRATION, Annotated, small_arrays
from tests.live_helpers import FPS, RATE, analysed, growth
from tests.live_server import Serve
from tests.server.archive.archive_helpers import commit, new_archive
from tests.wire_client import START_MS, WireClient

HOSTILE = ["Ga open", "=1+1", "μ\x00\n\u202e \u540d", ""]


def known(events: list[Event], calibration: CalibrationRecord | None = None) -> Annotated:
    return Annotated(events, [], [], [], calibration or CalibrationRecord())


def marks(labels: list[str]) -> list[Event]:
    return [Event(float(k), "note", label, None, str(k), 1e12 + k, "user") for k, label in enumerate(labels)]


async def test_a_copied_archive_is_complete(serve: Serve, tmp_path: Path) -> None:
    """After a growth, a copy of frames.zarr alone has all results and annotations of the server, with units and
    meanings.
    """
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        path = f"/rheed/stream/{data_id}"
        for k, label in enumerate(HOSTILE[:3]):
            mark = {
                "label": label,
                "kind": "shutter" if k == 0 else "note",
                "time_ms_utc": START_MS + 1000 * k,
            }
            assert (await client.ask("POST", f"{path}/events", mark))[0] == 200
        box = {
            "type": "box",
            "name": "Left",
            "x": 80.0,
            "y": 150.0,
            "width": 12.0,
            "height": 40.0,
            "tracked": False,
        }
        assert (await client.ask("PUT", f"{path}/regions", {"regions": [box]}))[0] == 200
        assert (await client.ask("PUT", f"{path}/calibration", {"layer_thickness_nm": 0.39}))[0] == 200
        await analysed(client, data_id, growth())
        _, status = await client.ask("GET", f"{path}/analysis")
    shutil.copytree(server.data_dir / "streams" / data_id / "frames.zarr", tmp_path / "copy.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(tmp_path / "copy.zarr", chunks=None) as copy:
            check_marks(copy, status)
            check_rest(copy, status)


def check_marks(copy: xarray.Dataset, status: dict[str, Any]) -> None:
    events = status["events"]
    assert [str(text) for text in copy["mark_label"].values] == [event["label"] for event in events]
    assert {"Ga open", "=1+1"} <= {str(text) for text in copy["mark_label"].values}
    assert copy["mark_time"].values.tolist() == [event["time_s"] for event in events]
    assert copy["mark_unix_ms"].values.tolist() == [event["time_ms_utc"] for event in events]
    assert copy["mark_time"].attrs == {"units": "s", "long_name": "time of the mark since the stream's start"}


def check_rest(copy: xarray.Dataset, status: dict[str, Any]) -> None:
    segments = status["segments"]
    assert copy["segment_start"].values.tolist() == [segment["start_s"] for segment in segments]
    assert np.allclose(copy["segment_rate"], [s["rate"]["value"] or np.nan for s in segments], equal_nan=True)
    assert abs(float(copy["segment_rate"][-1]) - RATE) < 0.1 * RATE
    assert str(copy["box_name"].values[0]) == "Left"
    assert {"specular", "streaks"} & {str(name) for name in copy["box_name"].values}
    assert copy["calibration_layer_thickness_nm"].item() == 0.39
    assert copy["calibration_layer_thickness_nm"].attrs["units"] == "nm"
    assert copy["calibration_incidence_deg"].item() == 0.0
    assert copy["frames"].attrs == {"long_name": "RHEED frames", "units": "counts"}
    without = [name for name in copy if "long_name" not in copy[name].attrs]
    assert without == []


def test_many_marks_and_fewer(tmp_path: Path) -> None:
    """More marks than a file holds, and then fewer: readers see exactly the last ones."""
    archive = new_archive(tmp_path)
    for count in (ROWS + 3, 2, 0, 1):
        archive.write_small(small_arrays(known(marks([f"m{k}" for k in range(count)]))))
        group = zarr.open_group(archive.folder / "frames.zarr", mode="r")
        assert list(group["mark_label"][:]) == [f"m{k}" for k in range(count)]
        assert group["mark_time"][:].tolist() == list(range(count))
    assert archive.small_rows("mark_time") == 1


def test_hostile_texts(tmp_path: Path) -> None:
    """Any text that a mark may have is read back as it is, half characters of broken encodings apart."""
    archive = new_archive(tmp_path)
    archive.write_small(small_arrays(known(marks([*HOSTILE, "half \ud800"]))))
    labels = zarr.open_group(archive.folder / "frames.zarr", mode="r")["mark_label"][:]
    assert [str(text) for text in labels] == [*HOSTILE, "half ?"]


def test_a_removed_calibration(tmp_path: Path) -> None:
    """The numbers of a calibration that was removed become NaN; those never given make no array."""
    archive = new_archive(tmp_path)
    archive.write_small(small_arrays(known([], CalibrationRecord(beam_energy=20.0))))
    assert (
        float(zarr.open_group(archive.folder / "frames.zarr", mode="r")["calibration_beam_energy"][0]) == 20.0
    )
    archive.write_small(small_arrays(known([])))
    group = zarr.open_group(archive.folder / "frames.zarr", mode="r")
    assert np.isnan(group["calibration_beam_energy"][0])
    assert str(group["calibration_layer_unit"][0]) == ""
    assert "calibration_px_per_mm" not in group


def test_marks_survive_a_restart_and_a_commit(tmp_path: Path) -> None:
    """The arrays stay when the archive is opened again and more chunks are stored."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    archive.write_small(small_arrays(known(marks(["Ga open"]))))
    archive.finish()
    again = type(archive).open(archive.folder)
    commit(again, 1)
    group = zarr.open_group(archive.folder / "frames.zarr", mode="r")
    assert [str(text) for text in group["mark_label"][:]] == ["Ga open"]
    assert again.small_rows("mark_time") == 1


def test_a_deleted_stream_stays_deleted(tmp_path: Path) -> None:
    """A copy that is written while the stream is deleted does not make its folder again."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    archive.delete(tmp_path / "trash" / "stream")
    try:
        archive.write_small(small_arrays(known(marks(["late"]))))
    except Exception as error:
        assert "was deleted" in str(error)  # noqa: PT017 - any error type would do
    assert not archive.folder.exists()


def test_each_column_has_a_long_name() -> None:
    """No result is without a meaning, and none has one that is not a result."""
    assert LONG_NAMES.keys() == UNITS.keys()
    assert CALIBRATION.keys() | {"layer_unit"} == set(CalibrationRecord.__struct_fields__)


@pytest.mark.parametrize("name", ["mark_time", "mark_label"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    """The check of a data folder finds a file that is too short."""
    archive = new_archive(tmp_path)
    archive.write_small(small_arrays(known(marks(["Ga open"]))))
    path = archive.folder / "frames.zarr" / name / "c" / "0"
    document = json.loads((path.parent.parent / "zarr.json").read_bytes())
    check_content(document, path.read_bytes())
    for damaged in (path.read_bytes()[:-3], path.read_bytes() + b"x", b""):
        with pytest.raises(ValueError, match=r"bytes|fill"):
            check_content(document, damaged)


def test_a_text_array_is_what_zarr_writes() -> None:
    """The bytes of a text array are those of zarr-python."""
    store: dict[str, Any] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(store),
        shape=(2,),
        dtype="string",
        chunks=(ROWS,),
        compressors=None,
        fill_value="",
    )
    array[:] = np.array(["a", "bé"], dtype=object)
    (ours,) = SmallArray("x", "mark", ["a", "bé"], "").files()
    assert ours == store["c/0"].to_bytes()
