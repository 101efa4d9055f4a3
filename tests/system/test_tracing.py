"""Spans of OpenTelemetry, and their absence in programs that do not use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atomstream.system import tracing
from tests.paths import REPO
from tests.scripts import run_python

ALL = "import atomstream, atomstream.streaming, atomstream.server.runner, atomstream.cli, atomstream.testing, sys"


def test_one_trace_from_push_to_result(tmp_path: Path) -> None:
    """Caller, chunk, upload, storing and analysis are one trace, each span the child of the one before."""
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    done = run_python(REPO / "tests/system/traced_stream.py", tmp_path)
    assert done.returncode == 0, done.stderr
    spans = json.loads(done.stdout)
    by_id = {span["id"]: span for span in spans}
    (growth,) = [span for span in spans if span["name"] == "growth"]
    ends = [span for span in spans if span["name"] == "atomstream.analyse"]
    assert sorted(span["attributes"]["index"] for span in ends) == [0, 1]
    for end in ends:
        path = [end]
        while path[-1]["parent"] is not None:
            path.append(by_id[path[-1]["parent"]])
        names = ["atomstream.analyse", "atomstream.store", "atomstream.upload", "atomstream.chunk", "growth"]
        assert [span["name"] for span in path] == names
        assert {span["trace"] for span in path} == {growth["trace"]}
        assert {span["status"] for span in path} == {"UNSET"}
        chunk = path[3]
        assert chunk["attributes"]["frames"] == 4
        assert chunk["attributes"]["state"] == "stored"
        assert "encoded" in chunk["events"]
    assert len(spans) == 9


def test_it_is_never_imported_here() -> None:
    """No module of this package imports OpenTelemetry: a program without it pays no time for it."""
    done = run_python("-c", f"{ALL}; assert not [m for m in sys.modules if m.startswith('opentelemetry')]")
    assert done.returncode == 0, done.stderr


def test_nothing_happens_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hook does nothing: no header, no span, no memory."""
    import sys

    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert tracing.current() is None
    assert tracing.headers() == {}
    assert tracing.received({"traceparent": f"00-{1:032x}-{1:016x}-01"}) is None
    spans = tracing.OpenSpans("x")
    spans.begin(1)
    spans.note(1, "event")
    with spans.part(1, "y"), tracing.span("z"):
        pass
    spans.end(1)
    assert not spans._open


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{0:032x}-{1:016x}-01",
        f"00-{1:032x}-{0:016x}-01",
        f"ff-{1:032x}-{1:016x}-01",
        "0" * 10_000,
    ],
)
def test_a_wrong_header_is_ignored(value: str) -> None:
    """An invalid trace context is ignored: a new trace begins."""
    pytest.importorskip("opentelemetry.trace", reason="opentelemetry is not installed")
    assert tracing.received({"traceparent": value}) is None


def test_spans_that_never_end_take_bounded_memory() -> None:
    """Above the limit of open spans, the oldest ones are ended."""
    pytest.importorskip("opentelemetry.trace", reason="opentelemetry is not installed")
    spans = tracing.OpenSpans("x")
    for key in range(tracing.MAX_OPEN + 10):
        spans.begin(key)
    assert len(spans._open) == tracing.MAX_OPEN
