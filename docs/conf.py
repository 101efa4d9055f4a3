"""Sphinx configuration of the documentation: ``python -m sphinx -W -b html docs build/docs``.

The pages are Markdown and readable on their own. Nothing on the built pages is loaded from the internet. The same
folder is in the wheel (see ``hatch_build.py``), so ``atomstream docs`` can build it on any computer that has Sphinx.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_extensions"), str(ROOT)]

from sphinx.errors import ExtensionError  # noqa: E402 - the path is set above

from atomstream.version import __version__  # noqa: E402 - the same

project = "atomstream"
author = "The atomstream developers"
copyright = "The atomstream developers"  # noqa: A001 - the name that Sphinx reads
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_help",
]
exclude_patterns = ["_extensions"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False
html_theme = "furo"
html_title = f"atomstream {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

OTHERS = "<!-- all other pages -->"
"""Replaced in ``index.md`` by the pages of this folder that no table of contents names, so that a new page is found."""

TOCTREE = "\n\n```{{toctree}}\n:hidden:\n\n{}\n```\n"

LINKS = (
    (r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1)"),
    (r"\]\(\.\./CHANGELOG\.md\)", "](changelog.md)"),
    (r"\]\(\.\./README\.md\)", "](index.md)"),
    (r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1"),
)
"""Links out of this folder, which are files of the repository, and what replaces them on the built pages."""


def read_page(app: Any, name: str, source: list[str]) -> None:
    """Prepare the text of a page."""
    text = source[0]
    if OTHERS in text:
        text = text.replace(OTHERS, "\n".join(other_pages(text)))
    if name == "decisions/README":
        text += TOCTREE.format("\n".join(sorted(path.stem for path in HERE.glob("decisions/[0-9]*.md"))))
    if "/" not in name:
        for pattern, replacement in LINKS:
            text = re.sub(pattern, replacement, text)
    source[0] = text


def other_pages(index: str) -> list[str]:
    """The names of the pages of this folder that ``index`` does not name."""
    pages = sorted(path.stem for path in HERE.glob("*.md"))
    return [page for page in pages if page != "index" and not re.search(rf"^{page}$", index, re.MULTILINE)]


def check_offline(app: Any, error: Exception | None) -> None:
    """Fail if a built page loads something from another server: it must be complete without internet."""
    if error is not None or app.builder.format != "html":
        return
    loading = re.compile(
        r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"(?:https?:)?//|@import|url\([\"']?https?:"
    )
    for path in Path(app.outdir).rglob("*"):
        if path.suffix in {".html", ".css"} and (found := loading.search(path.read_text(encoding="utf-8"))):
            raise ExtensionError(f"{path} loads from the internet: {found.group(0)}")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_page)
    app.connect("build-finished", check_offline)
