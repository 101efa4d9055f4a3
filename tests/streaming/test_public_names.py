"""The public methods of both streamers: their names, arguments, defaults and documentation."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Final

import pytest

from atomstream import AsyncRHEEDStreamer, RHEEDStreamer

STABILITY: Final = Path(__file__).parents[2] / "docs" / "api_stability.md"

POSITIONAL: Final = (
    "api_key",
    "endpoint",
    "verbosity",
    "spool_dir",
    "spool_max_bytes",
    "spool_min_free_bytes",
    "spool_retention_s",
)
KEYWORD_ONLY: Final = {
    "buffer_bytes": None,
    "on_full": "wait",
    "full_timeout_s": None,
    "durability": "memory",
    "compression_level": 1,
    "encoder_threads": None,
    "upload_concurrency": 4,
    "when_unreachable": "record",
    "request_timeout_s": 30.0,
    "upload_timeout_s": 300.0,
    "clock_sync": None,
}
REQUIRED: Final = inspect.Parameter.empty
PUSH_DETAILS: Final = {"frame_times_ms": None, "frame_ids": None, "angles_deg": None, "copy": True}
CALIBRATION: Final = (
    "beam_energy",
    "screen_sample_distance",
    "px_per_mm",
    "incidence_deg",
    "layer_thickness_nm",
    "layer_unit",
    "miller_n",
    "reference_spacing_px",
)

METHODS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "initialize": (
        dict(
            fps=REQUIRED,
            rotations_per_min=REQUIRED,
            chunk_size=REQUIRED,
            stream_name=None,
            physical_sample=None,
            project_id=None,
            tags=None,
            azimuth=None,
        ),
        {},
    ),
    "resume": (dict(data_id=REQUIRED), {}),
    "push": (
        dict(data_id=REQUIRED, chunk_idx=REQUIRED, frames=REQUIRED, capture_start_ms_utc=None),
        PUSH_DETAILS,
    ),
    "push_frame": (
        dict(data_id=REQUIRED, frame=REQUIRED, capture_ms_utc=None, frame_id=None, angle_deg=None),
        {},
    ),
    "run": (dict(data_id=REQUIRED, frames_iter=REQUIRED), {}),
    "flush": (dict(data_id=REQUIRED, timeout_s=None), {}),
    "finalize": (dict(data_id=REQUIRED, drain_timeout_s=None), {}),
    "results": (dict(data_id=REQUIRED, after=0), {}),
    "latest": (dict(data_id=REQUIRED), {}),
    "mark": (dict(data_id=REQUIRED, label=REQUIRED, kind="note", time_ms_utc=None), {}),
    "set_rotation": (dict(data_id=REQUIRED, rpm=REQUIRED), {}),
    "calibrate": (dict(data_id=REQUIRED), dict.fromkeys(CALIBRATION)),
    "set_attributes": (dict(data_id=REQUIRED, attributes=REQUIRED), {}),
    "server_id": (dict(data_id=REQUIRED), {}),
    "stats": ({}, {}),
    "clock_status": ({}, {}),
    "spool_status": ({}, {}),
    "close": (dict(drain_timeout_s=30.0), {}),
}
"""The contract: each method's positional arguments and keyword-only arguments, with their defaults."""

STREAMERS: Final = [AsyncRHEEDStreamer, RHEEDStreamer]


def arguments(function: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Positional and keyword-only arguments of a method with their defaults, in order, without ``self``."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    positional = {one.name: one.default for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD}
    keyword_only = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert len(positional) + len(keyword_only) == len(parameters)
    return positional, keyword_only


@pytest.mark.parametrize("streamer", STREAMERS)
def test_the_public_names_are_the_contract(streamer: type) -> None:
    """Both streamers have the methods of the contract and no other public name."""
    assert {name for name in dir(streamer) if not name.startswith("_")} == set(METHODS)


@pytest.mark.parametrize("streamer", STREAMERS)
@pytest.mark.parametrize("name", METHODS)
def test_the_arguments_are_the_contract(streamer: type, name: str) -> None:
    """Each method of both streamers has the same arguments in the same order, with the same defaults."""
    positional, keyword_only = arguments(getattr(streamer, name))
    assert (list(positional.items()), keyword_only) == (list(METHODS[name][0].items()), METHODS[name][1])


@pytest.mark.parametrize("streamer", STREAMERS)
def test_the_constructors_take_the_same_arguments(streamer: Any) -> None:
    """The first seven arguments may be positional, in the order of the hosted service's client; all have defaults."""
    positional, keyword_only = arguments(streamer.__init__)
    assert list(positional.items()) == [(name, None) for name in POSITIONAL]
    assert keyword_only == KEYWORD_ONLY


@pytest.mark.parametrize("name", METHODS)
def test_the_docs_list_every_method(name: str) -> None:
    """The page on API stability names each public method."""
    assert re.search(rf"\b{name}\(", STABILITY.read_text(encoding="utf-8"))


@pytest.mark.parametrize("streamer", STREAMERS)
@pytest.mark.parametrize("name", METHODS)
def test_help_describes_every_argument(streamer: type, name: str) -> None:
    """``help()`` of each method describes every argument, and the errors of each method that sends something."""
    method = getattr(streamer, name)
    text = inspect.getdoc(method) or ""
    undocumented = [one for part in arguments(method) for one in part if f"    {one}: " not in text]
    assert undocumented == []
    assert "Raises:" in text or name in {"latest", "stats", "clock_status", "close"}


@pytest.mark.parametrize("streamer", STREAMERS)
def test_help_describes_every_setting(streamer: type) -> None:
    """``help()`` of both classes describes every argument of the constructor."""
    text = inspect.getdoc(streamer) or ""
    assert [name for name in (*POSITIONAL, *KEYWORD_ONLY) if f"    {name}: " not in text] == []


def test_help_of_the_blocking_methods_is_complete() -> None:
    """The blocking method's help has all of the asynchronous method's text, and names the differences."""
    text = inspect.getdoc(RHEEDStreamer.push) or ""
    summary, _, rest = (inspect.getdoc(AsyncRHEEDStreamer.push) or "").partition("\n\n")
    assert text.startswith(f"{summary}\n\nThis call blocks until the chunk is copied")
    assert text.endswith(rest)
