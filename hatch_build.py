"""Build hook: puts the documentation into the wheel, for ``atomstream docs`` on computers without internet.

The pages are always included. Where Sphinx and the packages of the extras ``docs`` and ``all`` are installed in the
building environment (``pip wheel --no-build-isolation .``), the built HTML is included too; else ``atomstream docs``
builds it at its first use.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "atomstream/documentation"
NEEDED = ("sphinx", "furo", "myst_parser", "numpy", "scipy", "aiohttp", "click")


class DocumentationHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's class is generic over its own config
    """Adds the documentation to wheels; an editable installation reads it from the repository."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        if version == "editable":
            return
        include = build_data["force_include"]
        if not (Path(self.root) / "docs").is_dir():  # as in an image that is built without it
            return
        for name in ("docs", "examples", "CHANGELOG.md"):
            include[str(Path(self.root) / name)] = f"{TARGET}/{name}"
        if all(importlib.util.find_spec(name) is not None for name in NEEDED):
            self._folder = tempfile.TemporaryDirectory()
            command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "docs", self._folder.name]
            subprocess.run(command, cwd=self.root, check=True)
            include[self._folder.name] = f"{TARGET}/html"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the wheel is written."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
