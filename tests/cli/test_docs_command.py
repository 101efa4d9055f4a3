from __future__ import annotations

import importlib
import importlib.util
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from atomstream.cli import docs as command
from atomstream.errors import ConfigError

docs = importlib.import_module("atomstream.cli.docs")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package, without a repository beside it."""
    monkeypatch.setattr(docs, "PACKAGE", tmp_path / "site-packages" / "atomstream")
    monkeypatch.setattr(docs, "SHIPPED", tmp_path / "site-packages" / "atomstream" / "documentation")
    monkeypatch.setattr(docs, "_cache", lambda: tmp_path / "cache" / "docs")
    return tmp_path / "site-packages" / "atomstream"


def write_pages(package: Path) -> None:
    folder = package / "documentation" / "docs"
    folder.mkdir(parents=True)
    (folder / "conf.py").write_text("source_suffix = {'.md': 'markdown'}\nextensions = ['myst_parser']\n")
    (folder / "index.md").write_text("# A page that was built\n")


def test_the_built_copy_is_opened(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with built pages: their place is printed and opened in the browser."""
    page = package / "documentation" / "html" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<h1>atomstream</h1>")
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    done = CliRunner().invoke(command, [])
    assert done.output.strip() == str(page)
    assert opened == [page.as_uri()]


def test_pages_are_built_at_the_first_use(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wheel without built pages: they are built once into the user's cache."""
    write_pages(package)
    built = docs.built_documentation()
    assert "A page that was built" in (built / "index.html").read_text(encoding="utf-8")
    assert "Building the documentation" in capsys.readouterr().err
    assert docs.built_documentation() == built
    assert capsys.readouterr().err == ""


def test_without_sphinx(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the pages can't be built, the error names the extra and the place of the unbuilt pages."""
    write_pages(package)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "furo" else find(name, *rest)
    )
    with pytest.raises(
        ConfigError, match=r"needs furo: pip install \"atomstream\[server,docs\]\".*documentation"
    ):
        docs.built_documentation()


def test_a_failed_build_leaves_nothing(package: Path) -> None:
    """The error has Sphinx's own text, and the next call builds again."""
    write_pages(package)
    page: Any = package / "documentation" / "docs" / "conf.py"
    page.write_text("extensions = ['no_such_extension']\n")
    with pytest.raises(ConfigError, match="no_such_extension"):
        docs.built_documentation()
    page.write_text("source_suffix = {'.md': 'markdown'}\nextensions = ['myst_parser']\n")
    assert (docs.built_documentation() / "index.html").is_file()


def test_an_installation_without_pages(package: Path) -> None:
    """Without pages there is nothing to build."""
    with pytest.raises(ConfigError, match="no documentation"):
        docs.built_documentation()
