"""Names of sources, and the search for cameras in a separate process."""

from __future__ import annotations

from pathlib import Path

import pytest

from atomstream.cameras.names import ADAPTERS
from atomstream.errors import ConfigError
from atomstream.record.source_search import FoundSource, find_sources
from atomstream.record.sources import camera_name


async def test_a_driver_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search ends after its limit, with the kinds that answered, and names those that did not."""
    (tmp_path / "mss.py").write_text("import time; print('{'); time.sleep(1000)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        "atomstream.record.source_search.ADAPTERS", {k: ADAPTERS[k] for k in ("sim", "screen")}
    )
    found, not_searched = await find_sources(limit_s=4.0)
    assert found == [FoundSource("simulator", "simulated growth, without a camera")]
    assert not_searched == {"screen": "its driver did not answer"}


@pytest.mark.parametrize(
    ("source", "camera"),
    [
        ("simulator", "sim"),
        ("simulator:320x240", "sim:320x240"),
        ("camera:basler:0", "basler:0"),
        (" basler:21234567 ", "basler:21234567"),
        ("file:C:/a b/growth.tif", "file:C:/a b/growth.tif"),
        ("watch:/data/in", "folder:/data/in"),
        ("screen:-10,0,640,480", "screen:-10,0,640,480"),
    ],
)
def test_names(source: str, camera: str) -> None:
    """Each name of a source is a camera's."""
    assert camera_name(source) == camera


@pytest.mark.parametrize("source", ["", "webcam", "camera:", "camera:nikon:1", "watch:", "growth.tif"])
def test_names_that_are_none(source: str) -> None:
    """Other names are refused with examples of valid ones."""
    with pytest.raises(ConfigError, match=r"is not a source; sources are simulator, camera:basler:0"):
        camera_name(source)
