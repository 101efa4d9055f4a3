"""The limits of arguments: client, command line, server and analysis accept and refuse the same values."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import pytest

from atomstream.analysis import Calibration
from atomstream.arguments import check_calibration, check_event
from atomstream.cli.options import calibration_options, pop_calibration
from atomstream.errors import ConfigError
from atomstream.protocol import (
    CALIBRATION_LIMITS,
    MAX_CHUNK_SIZE,
    MAX_FPS,
    MAX_LABEL_CHARS,
    MAX_LAYER_UNIT_CHARS,
    MAX_NAME_CHARS,
    MAX_RPM,
    MAX_TIME_MS,
    MIN_FPS,
)
from atomstream.streaming.stream_request import InitializeRequest
from atomstream.streaming.validation import check_capture_ms
from tests.live_server import Serve
from tests.wire_client import WireClient

FLAGS = {
    "beam_energy": "--beam-energy",
    "screen_sample_distance": "--distance",
    "px_per_mm": "--px-per-mm",
    "incidence_deg": "--incidence",
    "miller_n": "--miller-n",
    "reference_spacing_px": "--reference-spacing",
    "layer_thickness_nm": "--layer-thickness",
    "layer_unit": "--layer-unit",
}

CALIBRATIONS: list[tuple[str, Any, bool]] = [
    *((name, value, True) for name, (low, high, _) in CALIBRATION_LIMITS.items() for value in (low, high)),
    *((name, math.nextafter(low, -math.inf), False) for name, (low, _, _) in CALIBRATION_LIMITS.items()),
    *((name, math.nextafter(high, math.inf), False) for name, (_, high, _) in CALIBRATION_LIMITS.items()),
    ("layer_unit", "u" * MAX_LAYER_UNIT_CHARS, True),
    ("layer_unit", "u" * (MAX_LAYER_UNIT_CHARS + 1), False),
    ("layer_unit", "", False),
    ("layer_unit", "  ", False),
]


def accepts(call: Callable[[], Any]) -> bool:
    """True if ``call`` raises no error about its argument."""
    try:
        call()
    except (ConfigError, click.UsageError):
        return False
    return True


def parse_options(*arguments: str) -> dict[str, Any]:
    """The calibration from options of the command line."""
    command = calibration_options(click.Command("stream"))
    return pop_calibration(dict(command.make_context("stream", list(arguments)).params))


def initialize(**changes: Any) -> InitializeRequest:
    """A valid request to create a stream, with changes."""
    return InitializeRequest(**{"fps": 120.0, "rotations_per_min": 0.0, "chunk_size": 240, **changes})


@pytest.mark.parametrize(("name", "value", "allowed"), CALIBRATIONS)
def test_calibration_limits_before_the_server(name: str, value: Any, allowed: bool) -> None:
    """Python client, command line and analysis accept a calibration value only if it is within its limits."""
    assert accepts(lambda: check_calibration({name: value})) == allowed
    assert accepts(lambda: parse_options(FLAGS[name], str(value))) == allowed
    assert name == "layer_unit" or accepts(lambda: Calibration(**{name: value})) == allowed


async def test_calibration_limits_of_the_server(serve: Serve) -> None:
    """The server accepts a calibration value exactly if the client does."""
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create()}/calibration"
        for name, value, allowed in CALIBRATIONS:
            status, reply = await client.ask("PUT", path, {name: value})
            assert status == (200 if allowed else 400), (name, value, reply)


@pytest.mark.parametrize("name", CALIBRATION_LIMITS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_calibration_must_be_finite(name: str, value: float) -> None:
    """NaN and infinity, which JSON can't carry, are refused by the client, the command line and the analysis."""
    assert not accepts(lambda: check_calibration({name: value}))
    assert not accepts(lambda: parse_options(FLAGS[name], str(value)))
    assert not accepts(lambda: Calibration(**{name: value}))


def check_client_event(kind: str, label: str, value: float | None, time_ms_utc: float | None = None) -> None:
    """The checks of ``streamer.mark``."""
    check_event(kind, label, value)
    check_capture_ms(time_ms_utc)


EVENTS: list[tuple[dict[str, Any], bool]] = [
    ({"label": "x" * MAX_LABEL_CHARS}, True),
    ({"label": "x" * (MAX_LABEL_CHARS + 1)}, False),
    ({"kind": "k" * 32}, True),
    ({"kind": "k" * 33}, False),
    ({"kind": "Shutter"}, False),
    ({"kind": "rotation", "value": MAX_RPM}, True),
    ({"kind": "rotation", "value": math.nextafter(MAX_RPM, math.inf)}, False),
    ({"kind": "rotation", "value": -1.0}, False),
    ({"kind": "rotation"}, False),
    ({"value": -1e300}, True),
    ({"time_ms_utc": MAX_TIME_MS}, True),
    ({"time_ms_utc": MAX_TIME_MS + 1.0}, False),
    ({"time_ms_utc": -1.0}, False),
]


async def test_event_limits(serve: Serve) -> None:
    """Client and server accept the same labels, kinds, values and times of events."""
    async with WireClient(await serve()) as client:
        path = f"/rheed/stream/{await client.create()}/events"
        for changes, allowed in EVENTS:
            event: dict[str, Any] = {"kind": "note", "label": "", "value": None, **changes}
            assert accepts(partial(check_client_event, **event)) == allowed, changes
            status, reply = await client.ask("POST", path, event)
            assert status == (200 if allowed else 400), (changes, reply)


STREAMS: list[tuple[str, str, Any, bool]] = [
    ("fps", "fps_capture_rate", MIN_FPS, True),
    ("fps", "fps_capture_rate", MAX_FPS, True),
    ("fps", "fps_capture_rate", math.nextafter(MIN_FPS, 0.0), False),
    ("fps", "fps_capture_rate", math.nextafter(MAX_FPS, math.inf), False),
    ("rotations_per_min", "rotations_per_min", MAX_RPM, True),
    ("rotations_per_min", "rotations_per_min", math.nextafter(MAX_RPM, math.inf), False),
    ("rotations_per_min", "rotations_per_min", -1.0, False),
    ("stream_name", "data_item_name", "n" * MAX_NAME_CHARS, True),
    ("stream_name", "data_item_name", "n" * (MAX_NAME_CHARS + 1), False),
    ("stream_name", "data_item_name", " ", False),
    ("azimuth", "azimuth_label", "a" * MAX_NAME_CHARS, True),
    ("azimuth", "azimuth_label", "a" * (MAX_NAME_CHARS + 1), False),
]


async def test_stream_limits(serve: Serve) -> None:
    """Client and server accept the same frame rates, rotations and names."""
    async with WireClient(await serve()) as client:
        for argument, key, value, allowed in STREAMS:
            assert accepts(initialize(**{argument: value}).checked) == allowed, argument
            body = {"data_item_name": "n", "rotations_per_min": 0.0, "fps_capture_rate": 120.0, key: value}
            status, reply = await client.ask("POST", "/rheed/stream/", body)
            assert status == (200 if allowed else 400), (key, value, reply)


@pytest.mark.parametrize(
    ("chunk_size", "allowed"), [(1, True), (MAX_CHUNK_SIZE, True), (MAX_CHUNK_SIZE + 1, False), (0, False)]
)
async def test_chunk_size_limits(serve: Serve, chunk_size: int, allowed: bool) -> None:
    """Client and server accept the same chunk sizes."""
    assert accepts(initialize(chunk_size=chunk_size).checked) == allowed
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        status, reply = await client.ask_url(data_id, 0, (1, 8, 12), chunk_size)
        assert status == (200 if allowed else 400), reply
