"""The page "What happens when ..." names an existing test in each row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.faults.fault_table import ROWS
from tests.paths import REPO

PAGE = REPO / "docs" / "what_happens_when.md"
LINK = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:\[(\w+)\])?`")


def rows() -> list[str]:
    """The page's table rows, without headers and rules."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith("| when |")]


def functions_of(file: Path) -> set[str]:
    """The test functions of a file."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("|")[1].strip()[:50])
def test_each_row_names_a_test_that_exists(row: str) -> None:
    """A row names exactly one test; its file, function and parameter exist."""
    [(file, name, parameter)] = LINK.findall(row)
    assert name in functions_of(REPO / file)
    assert not parameter or parameter in {fault.name for fault in ROWS}


def test_each_row_of_the_campaign_is_on_the_page() -> None:
    """Every fault of the campaign is on the page."""
    steps = {parameter for _, _, parameter in LINK.findall(PAGE.read_text()) if parameter}
    assert steps == {row.name for row in ROWS}
