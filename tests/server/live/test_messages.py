"""The maps that results have on disk and on the wire: docs/live_api.md, and the records of earlier versions."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from msgspec import structs

from atomstream.analysis import Box, Calibration, Line
from atomstream.errors import ConfigError
from atomstream.results import Batch, Event, Measurement, Segment, View
from atomstream.server.live.annotation_records import (
    BoxRecord,
    CalibrationRecord,
    LineRecord,
    check_regions,
    from_region,
    to_region,
)
from atomstream.server.live.feed import Message, encode
from atomstream.server.live.messages import (
    AnalysisStatus,
    AngleSeries,
    AzimuthView,
    BatchMessage,
    CurrentResults,
    EndMessage,
    EventMessage,
    FeedMessage,
    HeartbeatMessage,
    HelloMessage,
    LostMessage,
    MeasurementRecord,
    MissingChunks,
    MissingMessage,
    ProgressMessage,
    RegionsMessage,
    RegionsReport,
    SegmentRecord,
    ViewAnnotation,
    ViewRecord,
    analyzer_batch,
)
from atomstream.server.live.result_log import complete, shortened, typed

NONE = {"value": None, "sigma": None, "unit": "", "why": "nothing grew", "note": ""}
RATE = {"value": 0.8, "sigma": None, "unit": "1/s", "why": "", "note": "a lower bound"}
SEGMENT = {
    "number": 1,
    "start_s": 0.0,
    "end_s": 2.5,
    "label": "",
    "rate": RATE,
    "cycles": None,
    "counted": NONE,
    "recovery": NONE,
}
VIEW = {
    "view_id": 2,
    "angle_deg": 91.5,
    "confidence": 0.9,
    "spacing_px": NONE,
    "specular_intensity": None,
    "turns": 3,
}
BOX = BoxRecord("specular", 1.0, 2.0, 3.0, 4.0, tracked=True)
REGION = {"type": "box", "name": "specular", "x": 1, "y": 2, "width": 3, "height": 4, "tracked": True}
STATUS_KEYS = [
    *(
        "data_id",
        "status",
        "why",
        "seq",
        "origin_unix_ms",
        "fps",
        "rpm",
        "chunk_size",
        "height",
        "width",
        "dtype",
    ),
    *(
        "n_frames",
        "frames_stored",
        "frames_analysed",
        "backlog_chunks",
        "progress",
        "reanalysis",
        "missing",
        "newest_unix_ms",
        "newest_s",
    ),
    *(
        "values",
        "segments",
        "views",
        "detected_regions",
        "views_why",
        "events",
        "columns",
        "regions",
        "calibration",
        "thinning",
    ),
]
EVENT = {
    "id": "gap-1.5000",
    "time_s": 1.5,
    "time_ms_utc": 2500.0,
    "kind": "gap",
    "label": "",
    "value": 3.0,
    "by": "analysis",
    "unit": "",
    "version": 1,
}
RESULTS: dict[str, Any] = {
    "values": {"growth_rate_ml_s": RATE},
    "segments": [SEGMENT],
    "views": [VIEW],
    "detected_regions": [REGION],
}
FACTS: dict[str, Any] = {
    "type": "batch",
    "start": 4,
    "count": 2,
    "frames_received": 8,
    "events": [EVENT],
    "made_unix_ms": 5e12,
    "final": False,
    "chunk": 1,
    "stored_unix_ms": None,
}


def analysed() -> Batch:
    """The batch of an analysis whose records are the maps above."""
    nan, none = float("nan"), Measurement(None, why="nothing grew")
    rate = Measurement(0.8, nan, "1/s", note="a lower bound")
    return Batch(
        start=4,
        count=2,
        frames={
            "time_seconds": np.array([0.1, 0.2]),
            "region:My box": np.array([1.5, nan]),
            "spot_count": np.full(2, nan),
        },
        values={"growth_rate_ml_s": rate},
        events=(Event(1.5, "gap", "", 3.0),),
        segments=(Segment(1, 0.0, 2.5, "", rate, nan, none, none),),
        views=(View(2, 91.5, 0.9, none, nan, 3),),
        profile=np.array([1.0, 0.1]),
        lines={"cut": np.array([2.0])},
    )


def message() -> BatchMessage:
    """The message of that batch."""
    made = analyzer_batch(analysed(), 8, [Box(1, 2, 3, 4, "specular", tracked=True)])
    event = Event(1.5, "gap", "", 3.0, "gap-1.5000", 2500.0)
    return BatchMessage(
        start=made.start,
        count=made.count,
        frames_received=made.frames_received,
        events=[event],
        made_unix_ms=5e12,
        final=False,
        chunk=1,
        values=made.values,
        segments=made.segments,
        views=made.views,
        detected_regions=made.detected_regions,
        seq=7,
        columns=made.columns,
        profile=made.profile,
        lines=made.lines,
    )


def test_a_batch_on_the_wire() -> None:
    """Subscribers receive the documented map: packed numbers in msgpack, lists and nulls in JSON."""
    times, trace = np.array([0.1, 0.2], "<f8").tobytes(), np.array([1.5, np.nan], "<f4").tobytes()
    packed = {"columns": {"time_seconds": times, "region_my_box": trace}, "lines": {"cut": b"\0\0\0\x40"}}
    listed = {"columns": {"time_seconds": [0.1, 0.2], "region_my_box": [1.5, None]}, "lines": {"cut": [2.0]}}
    made = Message(message())
    expected = {**FACTS, **RESULTS, "seq": 7}
    profile = np.array([1.0, 0.1], "<f4").tobytes()
    assert msgpack.unpackb(made.encoded("msgpack", None)) == {**expected, **packed, "profile": profile}
    assert msgspec.json.decode(made.encoded("json", None)) == {**expected, **listed, "profile": [1.0, 0.1]}
    one = msgpack.unpackb(made.encoded("msgpack", frozenset({"time_seconds"})))
    assert one["columns"] == {"time_seconds": times}


def stored_map(record: msgspec.Struct) -> dict[str, Any]:
    """The map on disk."""
    read: dict[str, Any] = msgpack.unpackb(msgspec.msgpack.encode(record))
    return read


def test_a_batch_on_disk() -> None:
    """A complete record has all results and ``key``; a short one has only those that changed."""
    record = structs.replace(message(), seq=msgspec.UNSET, reanalysis=True)
    whole = complete(record)
    assert stored_map(whole) == {**FACTS, **RESULTS, "reanalysis": True, "key": True}
    before = typed(1, stored_map(whole))
    assert before == whole
    current = message()
    short = shortened(current, _results_of(current))
    assert short is not None
    assert stored_map(short) == FACTS
    newer = structs.replace(current, values={**current.values, "layers_grown": current.segments[0].rate})
    short = shortened(newer, _results_of(current))
    assert short is not None
    assert stored_map(short) == {**FACTS, "values": {"layers_grown": RATE}}


def _results_of(batch: BatchMessage) -> CurrentResults:
    return CurrentResults(batch.values, batch.segments, batch.views, batch.detected_regions)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            HelloMessage(
                data_id="a", seq=0, status="none", origin_unix_ms=None, fps=30.0, rpm=0.0, chunk_size=None
            ),
            {
                "type": "hello",
                "data_id": "a",
                "seq": 0,
                "status": "none",
                "origin_unix_ms": None,
                "fps": 30.0,
                "rpm": 0.0,
                "chunk_size": None,
            },
        ),
        (
            EventMessage(event=msgspec.convert(EVENT, Event), seq=3),
            {"type": "event", "event": EVENT, "seq": 3},
        ),
        (
            RegionsMessage(regions=[BOX], detected_regions=[], complete=True),
            {"type": "regions", "regions": [REGION], "detected_regions": [], "complete": True},
        ),
        (ProgressMessage(fraction=None), {"type": "progress", "fraction": None}),
        (
            MissingMessage(reanalysis=True, missing=[MissingChunks(why="late", chunks="3-4", count=2)]),
            {
                "type": "missing",
                "reanalysis": True,
                "missing": [{"why": "late", "chunks": "3-4", "count": 2}],
            },
        ),
        (LostMessage(count=2, first=1, last=2), {"type": "lost", "count": 2, "first": 1, "last": 2}),
        (HeartbeatMessage(seq=0, unix_ms=5.0), {"type": "heartbeat", "seq": 0, "unix_ms": 5.0}),
        (EndMessage(seq=0), {"type": "end", "seq": 0}),
        (
            EndMessage(missing=[MissingChunks(why="late", chunks="7", count=1)]),
            {"type": "end", "missing": [{"why": "late", "chunks": "7", "count": 1}]},
        ),
    ],
)
def test_other_messages(made: FeedMessage, expected: dict[str, Any]) -> None:
    """They have exactly these keys, in both encodings."""
    assert msgpack.unpackb(encode("msgpack", made)) == expected
    assert msgspec.json.decode(encode("json", made)) == expected


def test_records_of_earlier_versions() -> None:
    """Records that use the keys of versions before 0.1.0, and those of a damaged place, are read."""
    old = {**FACTS, **RESULTS, "key": True, "again": True}
    old["found"] = old.pop("detected_regions")
    assert stored_map(typed(1, old)) == {**FACTS, **RESULTS, "key": True, "reanalysis": True}
    old_end = {"type": "end", "lacks": [[7, "late"], [3, "unreadable"], [8, "late"]]}
    assert typed(2, old_end) == EndMessage(
        missing=[
            MissingChunks(why="unreadable", chunks="3", count=1),
            MissingChunks(why="late", chunks="7-8", count=2),
        ]
    )
    assert typed(3, {"type": "lost", "what": "lost", "nbytes": 90}) == LostMessage(count=1, first=3, last=3)


def test_bodies_of_replies() -> None:
    """They are byte for byte as before they had types: the same keys in the same order, None for what is unknown."""
    box, line = Box(10.0, 20.5, 8.0, 6.0, "specular", tracked=True), Line(1.0, 2.0, 30.0, 2.0, "cut")
    regions = check_regions([from_region(box), from_region(line)])
    assert [to_region(region) for region in regions] == [box, line]
    report = RegionsReport(
        regions=regions, detected_regions=[], columns={"specular": "region_specular"}, progress=None
    )
    assert msgspec.json.encode(report) == (
        b'{"regions":[{"type":"box","name":"specular","x":10.0,"y":20.5,"width":8.0,"height":6.0,"tracked":true},'
        b'{"type":"line","name":"cut","x0":1.0,"y0":2.0,"x1":30.0,"y1":2.0,"width":1.0}],'
        b'"detected_regions":[],"columns":{"specular":"region_specular"},"progress":null}'
    )
    assert msgspec.json.encode(CalibrationRecord()) == b"{}"
    calibration = CalibrationRecord(beam_energy=20.0, layer_unit="unit cell")
    assert msgspec.json.encode(calibration) == b'{"beam_energy":20.0,"layer_unit":"unit cell"}'
    series = AngleSeries(angle=0.0, view_id="stationary", azimuth_label=None, series=[{"frame_number": 3}])
    assert msgspec.json.encode(series) == (
        b'{"angle":0.0,"view_id":"stationary","interval_id":"0","azimuth_label":null,"series":[{"frame_number":3}]}'
    )
    view = AzimuthView(
        data_id="a", view_id="1", processed_data_id="a", seed_frame=0, start_frame=0, end_frame=9, start_unix_ms=1.5,
        end_unix_ms=None, rpm=10.0, azimuth_source="analysis", azimuth_label="[110]", confidence=0.5,
        annotation=ViewAnnotation(enabled=True, angle_deg=90.0),
    )  # fmt: skip
    assert msgspec.json.encode(view) == (
        b'{"data_id":"a","view_id":"1","interval_id":"0","processed_data_id":"a","seed_frame":0,"start_frame":0,'
        b'"end_frame":9,"start_unix_ms":1.5,"end_unix_ms":null,"rpm":10.0,"azimuth_source":"analysis",'
        b'"azimuth_label":"[110]","confidence":0.5,"annotation":{"enabled":true,"angle_deg":90.0}}'
    )
    assert list(AnalysisStatus.__struct_fields__) == STATUS_KEYS


@pytest.mark.parametrize(
    ("record", "original"),
    [
        (BoxRecord, Box),
        (LineRecord, Line),
        (CalibrationRecord, Calibration),
        (MeasurementRecord, Measurement),
        (SegmentRecord, Segment),
        (ViewRecord, View),
    ],
    ids=lambda kind: kind.__name__,
)
def test_records_have_the_fields_of_the_analysis(record: type[msgspec.Struct], original: type[Any]) -> None:
    """A record on the wire has the fields of the analysis' own class. Where both have a default, it is the same."""
    on_wire = {field.name: field.default for field in structs.fields(record)}
    own = {field.name: field.default for field in dataclasses.fields(original)}
    assert on_wire.keys() == own.keys()
    for name, default in on_wire.items():
        if default is not msgspec.NODEFAULT and own[name] is not dataclasses.MISSING:
            assert default == own[name]
    if record is CalibrationRecord:
        assert on_wire == own


def test_regions_that_are_refused() -> None:
    """Two regions with one column, names without a character, and sizes that no picture has."""
    box = BoxRecord("a b", 1.0, 2.0, 3.0, 4.0)
    with pytest.raises(ConfigError, match="same name"):
        check_regions([box, LineRecord("A-B", 0.0, 0.0, 1.0, 1.0)])
    with pytest.raises(ConfigError, match="1 to 50 characters"):
        check_regions([structs.replace(box, name=" ")])
    with pytest.raises(ConfigError, match="at least 1 px"):
        check_regions([structs.replace(box, width=0.0)])
