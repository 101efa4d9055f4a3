"""What client and server must agree on: headers, subprotocols, paths, limits, and when two names are the same.

Paths are templates in aiohttp's notation: the server registers them unchanged, :func:`path` fills one in for a
request. They are exactly those of the hosted service's protocol; there is no redirect from a similar one.

Limits are here if the server refuses what is beyond them: the client checks the same ones before it sends anything.
Defaults and ranges of the client's settings are in :mod:`atomstream.config`.
"""

from __future__ import annotations

import struct
import unicodedata
from typing import Final
from urllib.parse import quote

# Headers.

API_KEY_HEADER: Final = "X-API-KEY"
"""Carries the API key in every request but the upload itself, whose URL is signed, and :data:`TIME_PATH`."""

SERVER_KEY_PREFIX: Final = "atst_"
"""API keys of an atomstream server begin with this; a client with such a key needs an explicit endpoint."""

ANNOUNCEMENT: Final = "Atomstream"
"""Header of the reply to :data:`STREAMS_PATH`: ``1`` from an atomstream server. Only such a server receives extensions
of the hosted service's protocol: frame times, uint16 frames, :data:`LOST_HEADER`."""

ANNOUNCED: Final = "1"

DIMS_HEADER: Final = "Atomstream-Dims"
"""Header of a stored chunk: ``frames,height,width,chunk_size,dtype``."""

MAX_COLUMN_ROWS: Final = 1 << 16
"""Most frames whose results are in one reply."""

PICTURE_HEADER: Final = struct.Struct("<d6I")
"""Header of a picture, followed by its rows (uint8): time in s (NaN: not known), frame number, width, height, the
frame's own width and height, and the camera's full scale, which is 255 in the picture."""

LOST_HEADER: Final = "Atomstream-Lost"
"""Header of :data:`END_PATH`: the indices of the chunks that the client has lost, as ``3-5,9``."""

CRC_HEADER: Final = "x-amz-checksum-crc32c"
"""Header of the reply to an upload: base64 of the CRC-32C of the received body, big-endian."""

# Subprotocols of the results' WebSocket: how its messages are encoded.

MSGPACK_SUBPROTOCOL: Final = "atomstream.msgpack"

JSON_SUBPROTOCOL: Final = "atomstream.json"

# Paths.

HEALTH_PATH: Final = "/health"
READY_PATH: Final = "/healthz"
"""An extension of this server."""
TIME_PATH: Final = "/gateway/time"
SAMPLES_PATH: Final = "/physical_samples/"
TAGS_PATH: Final = "/tags/"
TAG_LINKS_PATH: Final = "/tags/data-items/"
PROJECTS_PATH: Final = "/projects/"
PROJECT_SAMPLES_PATH: Final = "/projects/{project_id}/physical_samples"
SAMPLE_SERIES_PATH: Final = "/physical_samples/{sample_id}/timeseries/"
SAMPLE_STEPS_PATH: Final = "/physical_samples/{sample_id}/process_steps"
SAMPLE_PLACES_PATH: Final = "/physical_samples/{sample_id}/annotations/"
CHANGEPOINTS_PATH: Final = "/changepoints/"
INSTRUMENTS_PATH: Final = "/instruments/synthesis"
TRACKING_PATH: Final = "/projects/{project_id}/configuration/tracking_samples"
ENTRIES_PATH: Final = "/data_entries/"
SAMPLE_LINKS_PATH: Final = "/data_entries/physical_sample"
SINGLE_FRAMES_PATH: Final = "/data_entries/video_single_frames/{data_id}"
RAW_DATA_PATH: Final = "/data_entries/raw_data/{data_id}"
PROCESSED_DATA_PATH: Final = "/data_entries/processed_data/{data_id}"
UPLOAD_URLS_PATH: Final = "/data_entries/raw_data/staged/upload_urls/"
RETENTION_PATH: Final = "/retention"
RETENTION_PREVIEW_PATH: Final = "/retention/preview"
RETENTION_RUN_PATH: Final = "/retention/run"
UPLOAD_PATH: Final = "/upload/{data_id}/{index}"
"""Path of the signed upload URLs of an atomstream server; a client uses any URL that it receives."""
STREAMS_PATH: Final = "/rheed/stream/"
STREAM_PATH: Final = "/rheed/stream/{data_id}"
"""``PATCH`` renames a stream or moves it to another project, ``DELETE`` deletes it (atomstream servers only)."""
END_PATH: Final = "/rheed/stream/{data_id}/end"
CHUNKS_PATH: Final = "/rheed/stream/{data_id}/chunks"
CHUNK_PATH: Final = "/rheed/stream/{data_id}/chunks/{index}"
COLUMNS_PATH: Final = "/rheed/stream/{data_id}/columns"
FEED_PATH: Final = "/rheed/stream/{data_id}/feed"
ANALYSIS_PATH: Final = "/rheed/stream/{data_id}/analysis"
REANALYSE_PATH: Final = "/rheed/stream/{data_id}/reanalyse"
PROFILES_PATH: Final = "/rheed/stream/{data_id}/profiles"
EVENTS_PATH: Final = "/rheed/stream/{data_id}/events"
EVENT_PATH: Final = "/rheed/stream/{data_id}/events/{event_id}"
REGIONS_PATH: Final = "/rheed/stream/{data_id}/regions"
ALARMS_PATH: Final = "/rheed/stream/{data_id}/alarms"
CALIBRATION_PATH: Final = "/rheed/stream/{data_id}/calibration"
PICTURE_PATH: Final = "/dashboard/streams/{data_id}/picture"
EXPORT_PATH: Final = "/rheed/stream/{data_id}/export"
TIMESERIES_PATH: Final = "/rheed/timeseries/{data_id}/"
AZIMUTHS_PATH: Final = "/rheed/{data_id}/azimuths"
AZIMUTH_PATH: Final = "/rheed/{data_id}/azimuths/{view_id}"
IMAGE_PATH: Final = "/rheed/images/{data_id}/frames/{n}"
IMAGE_FINGERPRINT_PATH: Final = "/rheed/images/{data_id}/fingerprint"
# Signals of instruments.

SIGNALS_PATH: Final = "/tool-state/stream/initialize"
SIGNALS_CHUNK_PATH: Final = "/tool-state/stream/chunk"
SIGNALS_CHUNKS_PATH: Final = "/tool-state/stream/chunk/multi"
SIGNALS_END_PATH: Final = "/tool-state/stream/{data_id}/finalize"
SIGNALS_SERIES_PATH: Final = "/tool-state/{data_id}/timeseries/"
STREAM_SIGNALS_PATH: Final = "/rheed/stream/{data_id}/signals"
"""The signals of the same sample at the times of a stream (atomstream servers only)."""

CHUNK_FILE: Final = "frames.zarr/frames/c/{index}/0/0"
"""Name of a chunk's file, ``original_filename`` in a request for an upload URL."""


def path(template: str, **parts: str | int) -> str:
    """``template`` with its parts filled in, each as one percent-encoded segment."""
    return template.format_map({name: quote(str(part), safe="") for name, part in parts.items()})


# Limits.

MIN_FPS: Final = 1e-3
MAX_FPS: Final = 100_000.0
"""Frames per second."""

MAX_RPM: Final = 10_000.0
"""Rotations of the substrate per minute."""

MAX_CHUNK_SIZE: Final = 100_000
"""Frames in a chunk."""

MAX_CHUNK_INDEX: Final = 10_000_000
"""More than 200 days of 2 s chunks. A larger index is a mistake, and the archive's array would be huge."""

MAX_SHARD_BYTES: Final = 1 << 30
"""Size of a chunk in bytes, raw or encoded."""

MAX_TIME_MS: Final = 4_102_444_800_000.0
"""The year 2100 in UTC milliseconds. A later capture time was probably given in microseconds."""

MAX_NAME_CHARS: Final = 256
"""Length of the name of a stream, sample, tag, project or azimuth."""

MAX_LABEL_CHARS: Final = 200
"""Length of an event's label."""

MAX_UNIT_CHARS: Final = 32
"""Length of the unit of a channel."""

MAX_CHUNK_POINTS: Final = 500_000
"""Most points in a chunk of signals, all channels together."""

MAX_SIGNAL_BYTES: Final = 32 << 20
"""Largest chunk of signals as JSON, in bytes."""

EVENT_KIND_PATTERN: Final = "[a-z][a-z0-9_]{0,31}"

MAX_LAYER_UNIT_CHARS: Final = 32
"""Length of a calibration's ``layer_unit``."""

MAX_LOST: Final = 100_000
"""Most lost indices of a stream that a server lists."""

MAX_LOST_CHARS: Final = 6000
"""Longest value of :data:`LOST_HEADER`: servers refuse headers above 8 kB. The server detects the indices that did not
fit, because their chunks are missing."""

HEARTBEAT_S: Final = 5.0
"""The feed sends a message at least this often."""

SILENCE_S: Final = 4 * HEARTBEAT_S
"""A client treats a feed without any message for this long as a broken connection."""

CALIBRATION_LIMITS: Final = {
    "beam_energy": (1.0, 200.0, "keV"),
    "screen_sample_distance": (10.0, 5000.0, "mm"),
    "px_per_mm": (0.1, 1000.0, "px/mm"),
    "incidence_deg": (0.0, 15.0, "degrees"),
    "layer_thickness_nm": (0.01, 100.0, "nm"),
    "miller_n": (0.01, 100.0, ""),
    "reference_spacing_px": (1.0, 10000.0, "px"),
}
"""Lowest and highest value of each calibration argument, and its unit. Wider than any RHEED chamber, narrow enough to
detect eV in place of keV, and Å in place of mm."""


def normalized_name(name: str) -> str:
    """The key by which names of samples, tags, projects and streams are compared.

    Equal keys mean the same name: outer blanks, case, and composed or decomposed accents make no difference.
    """
    # Unicode's canonical caseless matching (D145) decomposes before it folds the case. Composing first, as NFC does,
    # gives other keys where U+0345 follows an accent: folding turns it into a letter that the accent then belongs to.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name.strip()).casefold())
