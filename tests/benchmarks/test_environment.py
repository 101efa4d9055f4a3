"""The environment of measured programs."""

from __future__ import annotations

import pytest

from benchmarks.processes import ROOT, environment


def test_variables_that_change_a_result_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of Python or of the streamers do not reach a worker, because they would change the figures."""
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "ATOMSTREAM_API_KEY", "ATOMSCALE_API_KEY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HOME", "/home/grower")
    variables = environment()
    assert {name for name in variables if name.startswith("PYTHON")} == {"PYTHONPATH"}
    assert variables["PYTHONPATH"] == str(ROOT)
    assert not [name for name in variables if name.endswith("_API_KEY")]
    assert variables["HOME"] == "/home/grower"
