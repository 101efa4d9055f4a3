"""The documents under ``docs/`` against the repository: paths, links and the index of decisions."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from atomstream import AsyncRHEEDStreamer, RHEEDStreamer
from tests.paths import REPO

DOCS: Final = REPO / "docs"
DECISIONS: Final = DOCS / "decisions"
SUFFIXES: Final = {".py", ".md", ".js", ".html", ".css", ".toml"}
FOLDERS: Final = ("atomstream", "benchmarks", "docs", "examples", "tests")
CITED: Final = re.compile(r"docs/[A-Za-z0-9_][A-Za-z0-9_./-]*[A-Za-z0-9_/]")
DEFINITIONS: Final = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SECTIONS: Final = ["Context", "Decision", "Consequences", "Measured"]


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project with its content, other people's data left out."""
    files = [path for folder in FOLDERS for path in sorted((REPO / folder).rglob("*"))]
    for path in [*files, *REPO.glob("*.md"), REPO / "pyproject.toml", REPO / ".ci" / "run"]:
        inside = path.relative_to(REPO)
        foreign = inside.parts[:2] == ("tests", "data") or "vendor" in inside.parts
        if path.is_file() and not foreign and (path.suffix in SUFFIXES or path.name == "run"):
            yield inside, path.read_text(encoding="utf-8")


def test_every_cited_page_exists() -> None:
    """Each ``docs/...`` path in code, tests or documents names a file or a folder of this repository."""
    missing = [
        f"{file}: {cited}"
        for file, text in texts()
        for cited in CITED.findall(text)
        if not (REPO / cited.rstrip("/")).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_to_files(page: Path) -> None:
    """Each relative link of a page leads to a file that exists."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_index_lists_every_decision() -> None:
    """``docs/decisions/README.md`` links each record once, in the order of their numbers."""
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index)
    assert listed == sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))


@pytest.mark.parametrize("page", sorted(DECISIONS.glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_each_decision_has_the_same_sections(page: Path) -> None:
    """A record has a title with its number, then context, decision, consequences and what was measured."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_stated_signatures_are_the_real_ones() -> None:
    """Each complete signature in ``docs/api_stability.md`` has the arguments of both streamers, in order."""
    page = (DOCS / "api_stability.md").read_text(encoding="utf-8")
    stated = re.findall(r"^(?!from|RHEED)(\w+)\(((?:[^()]|\(\))*)\)", page, re.MULTILINE)
    stated = [(name, arguments) for name, arguments in stated if "..." not in arguments]
    assert {"initialize", "push", "push_frame", "run", "flush", "finalize", "resume"} <= dict(stated).keys()
    for name, arguments in stated:
        for streamer in (RHEEDStreamer, AsyncRHEEDStreamer):
            real = inspect.signature(getattr(streamer, name))
            assert names_of(arguments) == [one for one in real.parameters if one != "self"]


def names_of(arguments: str) -> list[str]:
    """The parameter names of an argument list as it stands between the parentheses of a ``def``."""
    parsed = ast.parse(f"def stated({arguments}): ...").body[0]
    assert isinstance(parsed, ast.FunctionDef)
    return [one.arg for one in (*parsed.args.args, *parsed.args.kwonlyargs)]


STEP: Final = re.compile(r"`(atomstream/[\w/]+\.py): ([\w.]+)`")
STEPS: Final = STEP.findall((DOCS / "path_of_a_chunk.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), STEPS, ids=lambda text: text.rpartition("/")[2])
def test_each_step_of_the_path_exists(file: str, name: str) -> None:
    """``docs/path_of_a_chunk.md`` names a function, or a method of a class, that is defined in that file."""
    scope: list[ast.stmt] = ast.parse((REPO / file).read_text(encoding="utf-8")).body
    for part in name.split("."):
        (node,) = [one for one in scope if isinstance(one, DEFINITIONS) and one.name == part]
        scope = node.body


def test_the_path_has_all_its_steps() -> None:
    """The steps are numbered from 1 without a gap, and each has one place."""
    page = (DOCS / "path_of_a_chunk.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert numbers == list(range(1, len(STEPS) + 1))


def test_the_map_of_the_packages_is_complete() -> None:
    """``docs/development.md`` names each package of the client and of the server, and no path that does not exist."""
    page = (DOCS / "development.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:atomstream|tests)/[\w/.]+)`", page))
    parents = (REPO / "atomstream", REPO / "atomstream" / "server")
    packages = {
        init.parent.relative_to(REPO).as_posix() for top in parents for init in top.glob("*/__init__.py")
    }
    assert packages <= named
    assert [path for path in sorted(named) if not (REPO / path).exists()] == []


def test_no_comment_points_outside_the_repository() -> None:
    """Code and documents cite pages of this repository only."""
    outside = re.compile(r"\bDECISIONS,|\b(?:DECISIONS|PROMISES|DESIGN|PROTOCOL)\.md\b|\.\./shared\b|/work/")
    own = Path(__file__).relative_to(REPO)
    assert [file for file, text in texts() if file != own and outside.search(text)] == []
