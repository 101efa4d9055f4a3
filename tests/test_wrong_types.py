"""Arguments of a wrong type: each public constructor and function names the argument in its error."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import atomstream
from atomstream.cameras import CameraSettings, Transforms, list_cameras, open_camera
from atomstream.sources import (
    ArraySource,
    GrowthSpec,
    ReadAhead,
    Simulator,
    follow_source,
    open_source,
    open_sources,
)

ACCESS = {"api_key": "k", "endpoint": "http://127.0.0.1:1"}
ANY = {"clock_sync", "ignore_times", "skip_damaged", "growth", "default_name", "dark", "dark_name", "region"}
"""Arguments that take anything, or are checked with the first frame."""
CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (atomstream.Client, ACCESS),
    (atomstream.AsyncClient, ACCESS),
    (atomstream.RHEEDStreamer, ACCESS),
    (atomstream.TimeseriesStreamer, ACCESS),
    (open_source, {"path": __file__}),
    (open_sources, {"paths": []}),
    (follow_source, {"path": __file__}),
    (CameraSettings, {}),
    (Transforms, {}),
    (open_camera, {"name": "sim"}),
    (list_cameras, {}),
    (Simulator, {}),
]


def cases() -> list[Any]:
    """Each argument of each call, once with an object and once with an array."""
    return [
        pytest.param(call, good | {name: wrong}, name, id=f"{call.__name__}-{name}-{type(wrong).__name__}")
        for call, good in CALLS
        for name, parameter in inspect.signature(call).parameters.items()
        if name not in ANY and parameter.kind is not parameter.VAR_KEYWORD
        for wrong in (object(), np.zeros(3))
    ]


@pytest.mark.parametrize(("call", "arguments", "name"), cases())
def test_the_error_names_the_argument(
    call: Callable[..., Any],
    arguments: dict[str, Any],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong type is a TypeError, or a ValueError that states what is allowed; nothing is started."""
    monkeypatch.setenv("ATOMSTREAM_SPOOL_DIR", str(tmp_path))
    with pytest.raises((TypeError, ValueError), match=name):
        call(**arguments)


@pytest.mark.parametrize(
    "name", ["height", "fps", "fractional_order", "strain", "pauses", "hum", "incidence_deg"]
)
def test_a_growth(name: str) -> None:
    """The numbers of a simulated growth are checked."""
    wrong: Any = {name: object()}
    with pytest.raises(TypeError, match=name):
        GrowthSpec(**wrong)


def test_arrays_and_iterables() -> None:
    """An argument of a wrong type is refused at once: a reading thread would wait for ever."""
    nothing: Any = 5
    with pytest.raises(TypeError, match="array"):
        ArraySource(nothing)
    with pytest.raises(TypeError, match="iterable"):
        ReadAhead(nothing)
    with pytest.raises(TypeError, match="chunk_size"):
        list(ArraySource(np.zeros((2, 4, 4), np.uint8)).chunks(nothing / 2))
