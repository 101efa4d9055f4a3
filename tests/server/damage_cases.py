"""Kinds of damage to a data folder: each is a function that changes the files of a stopped server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import google_crc32c
import msgspec

Damage: TypeAlias = Callable[[Path], object]
"""Changes the folder of a stream, or the data folder."""

NOISE: Final = bytes(range(256)) * 20
DEEP: Final = b"[" * 200_000


def write(name: str, content: bytes) -> Damage:
    """Replace the content of the file ``name``."""
    return lambda folder: (folder / name).write_bytes(content)


def make_folder(name: str) -> Damage:
    """Make the empty folder ``name``."""
    return lambda folder: (folder / name).mkdir()


def remove(name: str) -> Damage:
    """Remove the file or folder ``name``."""

    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)

    return change


def as_folder(name: str) -> Damage:
    """Put a folder with a file in it in the place of ``name``."""

    def change(folder: Path) -> None:
        remove(name)(folder)
        (folder / name).mkdir(parents=True)
        (folder / name / "mine.txt").write_bytes(b"mine")

    return change


def as_file(name: str) -> Damage:
    """Put a file in the place of the folder ``name``."""

    def change(folder: Path) -> None:
        remove(name)(folder)
        (folder / name).write_bytes(b"x")

    return change


def huge(name: str) -> Damage:
    """Make the file ``name`` a terabyte long, with a hole."""
    return lambda folder: os.truncate(folder / name, 1 << 40)


def hole(name: str) -> Damage:
    """Replace the middle third of the file ``name`` by zeros."""

    def change(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        third = len(raw) // 3
        (folder / name).write_bytes(raw[:third] + bytes(third) + raw[2 * third :])

    return change


def as_pipe(name: str) -> Damage:
    """Put a named pipe in the place of ``name``."""

    def change(folder: Path) -> None:
        remove(name)(folder)
        os.mkfifo(folder / name)

    return change


def cut(name: str, nbytes: int) -> Damage:
    """Cut the file ``name`` to ``nbytes``."""
    return lambda folder: os.truncate(folder / name, nbytes)


def flip(name: str, at: int) -> Damage:
    """Change one byte of the file ``name``."""

    def change(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[at] ^= 0xFF
        (folder / name).write_bytes(raw)

    return change


def edit(file: str, **changes: Any) -> Damage:
    """Change values in the JSON file ``file``; a key with ``__`` leads into nested objects, ``...`` removes."""

    def change(folder: Path) -> None:
        document = json.loads((folder / file).read_bytes())
        for path, value in changes.items():
            *outer, last = path.split("__")
            target = document
            for key in outer:
                target = target[key]
            if value is ...:
                del target[last]
            else:
                target[last] = value
        (folder / file).write_text(json.dumps(document))

    return change


def both(*damages: Damage) -> Damage:
    """Several kinds at once."""

    def change(folder: Path) -> None:
        for one in damages:
            one(folder)

    return change


def frame(payload: bytes) -> bytes:
    """A record of a log, with its right checksum."""
    return struct.pack("<II", len(payload), google_crc32c.value(payload)) + payload


def log_of(*records: Any) -> bytes:
    """A log file whose records have right checksums; a record in bytes is taken as it is."""
    packed = (one if isinstance(one, bytes) else msgspec.msgpack.encode(one) for one in records)
    return b"atslog1\n" + b"".join(map(frame, packed))


def checked(content: Any) -> bytes:
    """A file with a right checksum at its end."""
    body = content if isinstance(content, bytes) else msgspec.msgpack.encode(content)
    return body + google_crc32c.value(body).to_bytes(4, "little")


def columns(folder: Path) -> Path:
    """The first file of the column of frame counts."""
    return folder / "frames.zarr/chunk_frames/c/0"


GROUP, FRAMES, TIME = "frames.zarr/zarr.json", "frames.zarr/frames/zarr.json", "frames.zarr/time/zarr.json"
RESULT: Final = "frames.zarr/saturated_fraction"
SHARD: Final = "frames.zarr/frames/c/1/0/0"
BATCH: Final = {
    "type": "batch", "start": 0, "count": 4, "frames_received": 4, "events": [], "made_unix_ms": 0.0, "final": False,
    "values": {}, "segments": [], "views": [], "detected_regions": [], "key": True,
}  # fmt: skip

STREAM: Final[dict[str, Damage]] = {
    "description emptied": write("stream.json", b""),
    "description noise": write("stream.json", NOISE),
    "description a list": write("stream.json", b"[]"),
    "description nested": write("stream.json", DEEP),
    "description of wrong types": write("stream.json", b'{"data_id": 5, "name": []}'),
    "description gone": remove("stream.json"),
    "description a folder": as_folder("stream.json"),
    "description a pipe": as_pipe("stream.json"),
    "description huge": huge("stream.json"),
    "group huge": huge("frames.zarr/zarr.json"),
    "time column huge": huge("frames.zarr/time/c/0"),
    "description: fps 0": edit("stream.json", fps=0),
    "description: fps negative": edit("stream.json", fps=-1.0),
    "description: fps NaN": edit("stream.json", fps=float("nan")),
    "description: fps infinite": edit("stream.json", fps=float("inf")),
    "description: rpm NaN": edit("stream.json", rotations_per_min=float("nan")),
    "description: name half a character": edit("stream.json", name="\ud800"),
    "description: label half a character": edit("stream.json", azimuth_label="\udfff"),
    "description: zero in the name": edit("stream.json", name="a\0b"),
    "description: status odd": edit("stream.json", status="odd"),
    "description: lost a list": edit("stream.json", lost=[[]]),
    "description: lost long": edit("stream.json", lost="0-99999999"),
    "description: tags twice": edit("stream.json", tags=[{"id": "t", "name": "n"}] * 2),
    "description: tags half a character": edit("stream.json", tags=[{"id": "t", "name": "\ud800"}]),
    "description: geometry of zeros": edit(
        "stream.json", geometry={"chunk_size": 0, "height": 0, "width": 0, "dtype": "uint8"}
    ),
    "description: geometry huge": edit(
        "stream.json", geometry={"chunk_size": 2**40, "height": 2**40, "width": 8, "dtype": "uint8"}
    ),
    "description: other values": edit("stream.json", mine={"deep": [1, {"x": None}]}, tags=None),
    "description: time no text": edit("stream.json", made=5),
    "group document emptied": write(GROUP, b""),
    "group document nested": write(GROUP, DEEP),
    "group document a folder": as_folder(GROUP),
    "group document of wrong types": write(
        GROUP, b'{"consolidated_metadata": {"metadata": {"x": 1, "time": {}}}}'
    ),
    "frames document emptied": write(FRAMES, b""),
    "frames document a folder": as_folder(FRAMES),
    "both documents emptied": both(write(GROUP, b""), write(FRAMES, b"")),
    "both documents noise": both(write(GROUP, NOISE), write(FRAMES, NOISE)),
    "frames document: shape text": edit(FRAMES, shape=["x", 8, 12]),
    "frames document: shape gone": edit(FRAMES, shape=...),
    "frames document: chunk shape zero": edit(
        FRAMES, chunk_grid={"configuration": {"chunk_shape": [0, 8, 12]}}
    ),
    "frames document: chunk shape short": edit(FRAMES, chunk_grid={"configuration": {"chunk_shape": [4]}}),
    "frames document: chunk grid text": edit(FRAMES, chunk_grid="x"),
    "frames document: other chunk size": edit(FRAMES, chunk_grid__configuration__chunk_shape=[3, 8, 12]),
    "frames document: other type": edit(FRAMES, data_type="float64"),
    "frames document: other pixel type": edit(FRAMES, data_type="uint16"),
    "time document garbled": write(TIME, b'{"node_type":"array"}'),
    "time document: names": edit(TIME, dimension_names=5),
    "time document: shape": edit(TIME, shape=["x"]),
    "time document: shape negative": edit(TIME, shape=[-5]),
    "time document: shape huge": edit(TIME, shape=[2**70]),
    "time document: fill": edit(TIME, fill_value="x"),
    "time document: attributes a list": edit(TIME, attributes=[1]),
    "time document: attributes gone": edit(TIME, attributes=...),
    "time document: codecs": edit(TIME, codecs=[1, None]),
    "time document: origin infinite": edit(TIME, attributes__origin_unix_ms=float("inf")),
    "time document: a pipe": as_pipe(TIME),
    "counts document: synced a list": edit(
        "frames.zarr/chunk_frames/zarr.json", attributes={"synced_chunks": [1]}
    ),
    "counts noise": lambda folder: columns(folder).write_bytes(os.urandom(65536)),
    "counts negative": lambda folder: columns(folder).write_bytes(struct.pack("<i", -5) * 16384),
    "counts cut": lambda folder: os.truncate(columns(folder), 100),
    "counts gone": remove("frames.zarr/chunk_frames"),
    "time column cut": cut("frames.zarr/time/c/0", 100),
    "time column noise": write("frames.zarr/time/c/0", bytes(range(256)) * 512),
    "time column a file": as_file("frames.zarr/time"),
    "time column: a folder for its values": as_folder("frames.zarr/time/c/0"),
    "time column: a file for its folder": as_file("frames.zarr/time/c"),
    "a result column a file": as_file(RESULT),
    "a result column: a folder for its values": as_folder(f"{RESULT}/c/0"),
    "a result column's document garbled": write(f"{RESULT}/zarr.json", b'{"node_type":"array"}'),
    "a foreign array": both(
        lambda folder: (folder / "frames.zarr/zz").mkdir(),
        write("frames.zarr/zz/zarr.json", b'{"node_type":"array","shape":["x"],"chunk_grid":5,"codecs":7}'),
    ),
    "frames.zarr gone": remove("frames.zarr"),
    "frames.zarr a file": as_file("frames.zarr"),
    "frames a file": as_file("frames.zarr/frames"),
    "shards a file": as_file("frames.zarr/frames/c"),
    "a shard emptied": write(SHARD, b""),
    "a shard cut": cut(SHARD, 300),
    "a shard's index changed": flip(SHARD, -10),
    "a shard's pixels changed": flip(SHARD, 50),
    "a shard a folder": as_folder(SHARD),
    "a shard gone": remove(SHARD),
    "a shard's folder a file": as_file("frames.zarr/frames/c/1"),
    "a shard a pipe": as_pipe(SHARD),
    "foreign files among the shards": both(
        write("frames.zarr/frames/c/x", b"x"),
        write("frames.zarr/frames/c/7", b"file"),
        *(
            make_folder(f"frames.zarr/frames/c/{name}")
            for name in ("٣", "-1", "8", "999999999999", "1" * 200)
        ),
    ),
    "results noise": write("analysis/results.log", NOISE),
    "results cut": cut("analysis/results.log", 40),
    "results emptied": write("analysis/results.log", b""),
    "results gone": remove("analysis/results.log"),
    "results huge": huge("analysis/results.log"),
    "results with a hole": hole("analysis/results.log"),
    "results a folder": as_folder("analysis/results.log"),
    "results a pipe": as_pipe("analysis/results.log"),
    "results: a batch without values": write("analysis/results.log", log_of({"type": "batch"})),
    "results: no maps": write("analysis/results.log", log_of([], 5, "x", None)),
    "results: no msgpack": write("analysis/results.log", log_of(b"\xc1\xc1", b"\x91" * 5000)),
    "results: negative numbers": write(
        "analysis/results.log", log_of({**BATCH, "start": -9, "count": -9, "frames_received": -(2**60)})
    ),
    "results: huge numbers": write(
        "analysis/results.log", log_of({**BATCH, "start": 2**62, "count": 2**62, "frames_received": 2**62})
    ),
    "results: NaN": write("analysis/results.log", log_of({**BATCH, "made_unix_ms": float("nan")})),
    "inputs noise": write("analysis/inputs.log", NOISE),
    "inputs a folder": as_folder("analysis/inputs.log"),
    "inputs emptied": write("analysis/inputs.log", b""),
    "inputs gone": remove("analysis/inputs.log"),
    "inputs huge": huge("analysis/inputs.log"),
    "inputs: wrong records": write("analysis/inputs.log", log_of({"x": 1}, [], b"\xc1")),
    "inputs: NaN": write(
        "analysis/inputs.log",
        log_of(
            {
                "what": "event",
                "id": "i",
                "kind": "note",
                "label": "l",
                "time_ms_utc": float("nan"),
                "value": None,
            },
            {
                "what": "regions",
                "regions": [
                    {"kind": "box", "name": "b", "x": float("nan"), "y": 1e300, "width": -1, "height": 0},
                ],
            },
            {"what": "calibration", "calibration": {"layer_thickness_nm": float("inf"), "miller_n": 0.0}},
        ),
    ),
    "checkpoint, state and profiles noise": both(
        *(write(f"analysis/{name}", NOISE) for name in ("checkpoint", "state", "profiles"))
    ),
    "checkpoint, state and profiles folders": both(
        *(as_folder(f"analysis/{name}") for name in ("checkpoint", "state", "profiles"))
    ),
    "checkpoint: wrong keys": write("analysis/checkpoint", checked({"view_tracks": 5})),
    "checkpoint: wrong types": write(
        "analysis/checkpoint", checked({"view_tracks": 5, "places": [], "noted": {"newest": 5}})
    ),
    "checkpoint no map": write("analysis/checkpoint", checked([1, 2])),
    "checkpoint no msgpack": write("analysis/checkpoint", checked(b"\xc1\xc1\xc1\xc1\xc1")),
    "state: wrong types": write("analysis/state", checked({"version": "", "state": 5})),
    "state no map": write("analysis/state", checked(["version"])),
    "profiles: wrong types": write("analysis/profiles", checked({"streaks": {"start_s": "x"}, "x": 5})),
    "profiles: too many rows": write(
        "analysis/profiles",
        checked({"streaks": {"start_s": 0.0, "step_s": 0.0, "columns": 2, "rows": bytes(8 * 5000)}}),
    ),
    "profiles no map": write("analysis/profiles", checked([1])),
    "running noise": write("analysis/running", NOISE),
    "running a folder": as_folder("analysis/running"),
    "running: analyse again": write("analysis/running", b"reanalysis"),
    "analysis gone": remove("analysis"),
    "analysis a file": as_file("analysis"),
    "incoming a file": both(remove("incoming"), as_file("incoming")),
    "incoming with a folder": lambda folder: (folder / "incoming" / ("a" * 32 + ".part")).mkdir(parents=True),
}
"""Damage to the folder of one stream."""


def sql(*statements: str) -> Damage:
    """Run statements on the catalogue."""

    def change(data: Path) -> None:
        connection = sqlite3.connect(data / "catalogue.sqlite")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


def no_wal(data: Path) -> None:
    """Remove the catalogue's log, so that its file is all that there is."""
    for path in data.glob("catalogue.sqlite-*"):
        path.unlink()


FOLDER: Final[dict[str, Damage]] = {
    "catalogue emptied": write("catalogue.sqlite", b""),
    "catalogue noise": both(no_wal, write("catalogue.sqlite", NOISE)),
    "catalogue a folder": both(no_wal, as_folder("catalogue.sqlite")),
    "catalogue's log a folder": as_folder("catalogue.sqlite-wal"),
    "catalogue of a later version": sql("PRAGMA user_version=99"),
    "catalogue without a table": sql("PRAGMA foreign_keys=OFF", "DROP TABLE stream_tags"),
    "catalogue without a column": sql("ALTER TABLE streams DROP COLUMN rpm"),
    "catalogue: texts for numbers": sql("UPDATE streams SET fps='fast', n_frames='many'"),
    "catalogue: fps 0": sql("UPDATE streams SET fps=0"),
    "names emptied": write("names.jsonl", b""),
    "names noise": write("names.jsonl", NOISE + b"\n{\n[]\n" + DEEP),
    "names a folder": as_folder("names.jsonl"),
    "names: unknown sample": write(
        "names.jsonl",
        b'{"type":"SampleTracked"}\n{"type":"tracking","project_id":"p","sample_id":"s","active":true,"made":"m"}\n',
    ),
    "names: the same twice": write(
        "names.jsonl",
        b'{"type":"tag","id":"1","name":"x","made":"m"}\n{"type":"tag","id":"2","name":"x (2)","made":"m"}\n'
        b'{"type":"tag","id":"2 ","name":"x","made":"m"}\n',
    ),
    "sessions noise": write("sessions.json", NOISE),
    "sessions a folder": as_folder("sessions.json"),
    "signing key emptied": write("signing.key", b""),
    "signing key a folder": as_folder("signing.key"),
    "a folder that is not a stream": lambda data: (data / "streams/evil name").mkdir(),
    "a file among the streams": write("streams/x", b"x"),
    "a link to itself": lambda data: (data / "streams/loop").symlink_to(data / "streams/loop"),
    "a pipe among the streams": lambda data: os.mkfifo(data / "streams/pipe"),
}
"""Damage to the data folder of a server."""
