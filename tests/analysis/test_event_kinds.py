"""The kinds of events: one list for the analysis, the page and the documentation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from atomstream import analysis
from atomstream.analysis.segments import FOUND_LABELS
from atomstream.results import ANALYSIS_KINDS, SEGMENT_KINDS
from atomstream.server import dashboard
from tests.paths import REPO

SCRIPTS = Path(dashboard.__file__).parent / "static" / "js"


def made_kinds() -> set[str]:
    """The constant kinds of all events that the code of the analysis makes."""
    files = Path(analysis.__file__).parent.glob("*.py")
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event"
    ]
    kinds = [call.args[1] if len(call.args) > 1 else None for call in calls]
    assert len(kinds) > 10
    return {str(kind.value) for kind in kinds if isinstance(kind, ast.Constant)}


def test_each_kind_that_is_made_is_listed() -> None:
    """The list has the kinds that the analysis makes, each once. A change of the rotation is one of the user."""
    assert sorted(ANALYSIS_KINDS) == sorted((made_kinds() - {"rotation"}) | set(FOUND_LABELS))
    assert not SEGMENT_KINDS & set(ANALYSIS_KINDS)


def test_each_kind_is_documented() -> None:
    """docs/live_api.md has one row for each kind of the analysis, in this order, and names each kind of a segment."""
    manual = (REPO / "docs" / "live_api.md").read_text(encoding="utf-8")
    table = manual.partition("| kind | what was found |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(ANALYSIS_KINDS)
    users = manual.partition("Kinds of events from the user:")[2].partition("begin a segment")[0]
    assert set(re.findall(r"`(\w+)`", users)) == SEGMENT_KINDS | {"note"}


def test_the_page_has_the_kinds() -> None:
    """The page has a text for each kind that is not a plain word, and begins a count where a segment begins."""
    texts = (
        (SCRIPTS / "events.js").read_text(encoding="utf-8").partition("const KINDS = {")[2].partition("};")[0]
    )
    shown = set(re.findall(r"^  (\w+):", texts, re.MULTILINE))
    assert shown <= set(ANALYSIS_KINDS)
    assert {kind for kind in ANALYSIS_KINDS if "_" in kind} <= shown
    cuts = re.search(r"const CUTS = \[(.*)\]", (SCRIPTS / "stream.js").read_text(encoding="utf-8"))
    assert cuts is not None
    assert set(re.findall(r"\"(\w+)\"", cuts[1])) == SEGMENT_KINDS
