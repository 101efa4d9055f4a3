"""What a measured program is given of the caller's environment."""

from __future__ import annotations

import pytest

from benchmarks.processes import ROOT, environment


def test_variables_that_change_a_run_stay_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's settings of Python or of the streamers, which would bend a figure, reach no worker."""
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "ATOMSTREAM_API_KEY", "ATOMSCALE_API_KEY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOME", "/home/grower")
    given = environment()
    assert {name for name in given if name.startswith("PYTHON")} == {"PYTHONPATH"}
    assert given["PYTHONPATH"] == str(ROOT)
    assert not [name for name in given if name.endswith("_API_KEY")]
    assert given["HOME"] == "/home/grower"
