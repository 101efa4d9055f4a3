"""The variable ATOMSTREAM_PLAIN_OS turns operating-system optimisations off, all of them or some."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from atomstream import config
from atomstream.system import tuning

SHOW_ALL_OFF = """
import gc, os, sys
import numpy as np
from atomstream.spool import record_store
from atomstream.streaming import warm_up
from atomstream.system import memory, scheduling, tuning

assert not any(map(tuning.enabled, tuning.ALL))
def forbidden(*_):
    raise AssertionError("an optimisation is used")
os.sched_yield = forbidden
memory._advise = memory.mmap.mmap = gc.collect = forbidden
scheduling.yield_core()
buffer = memory.allocate(16 << 20)
assert not memory.populate(buffer)
files = record_store.RecycledFiles(None, None, None)
files.add(None)
assert files.pop() is None
warm_up.warm_up_process()
print("plain")
"""


@pytest.mark.parametrize(
    ("value", "off"),
    [
        ("", set()),
        ("0", set()),
        ("1", {"a", "b", "c"}),
        (" All ", {"a", "b", "c"}),
        ("a, c", {"a", "c"}),
    ],
)
def test_the_setting_is_parsed(monkeypatch: pytest.MonkeyPatch, value: str, off: set[str]) -> None:
    """1 turns all off, a comma-separated list those that it names."""
    monkeypatch.setenv("ATOMSTREAM_PLAIN_OS", value)
    assert config.plain_os(frozenset("abc")) == off


def test_an_unknown_name_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt name is in the log, and the others are off all the same."""
    monkeypatch.setenv("ATOMSTREAM_PLAIN_OS", "afinity,b")
    with caplog.at_level(logging.WARNING, "atomstream"):
        assert config.plain_os(frozenset({"affine", "b"})) == {"b"}
    assert "afinity" in caplog.text


def test_no_optimisation_is_used_when_off() -> None:
    """With ATOMSTREAM_PLAIN_OS=1 no optimisation makes its system call."""
    environment = {**os.environ, "ATOMSTREAM_PLAIN_OS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SHOW_ALL_OFF], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("plain", 0), done.stderr


def test_all_are_on_unless_turned_off() -> None:
    """Without the setting every optimisation is used."""
    off = config.plain_os(tuning.ALL)
    assert {name for name in tuning.ALL if not tuning.enabled(name)} == off  # type: ignore[arg-type]
