"""Build hook: puts the documentation into sdist and wheel, for ``atomstream docs`` on computers without internet.

The Markdown is always included. The built HTML is included

- in an sdist (``python -m build`` makes the wheel from it): the sdist's build environment has Sphinx;
- in a wheel of the repository, if ``ATOMSTREAM_BUILD_DOCS=1`` is set (``pip wheel .``), or if the building environment
  has Sphinx and the packages that the pages import (``--no-build-isolation``).

Else ``atomstream docs`` builds it at its first use. So an installation from the repository needs no Sphinx and half a
minute less.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "atomstream/documentation"
NEEDED = ("sphinx", "furo", "myst_parser", "numpy", "scipy", "aiohttp", "click")
SWITCH = "ATOMSTREAM_BUILD_DOCS"
EXTRAS = ("server", "docs")
"""The extras of this project with what the pages need, as ``sdist.hooks.custom`` of pyproject.toml has them."""


class DocumentationHook(BuildHookInterface):  # type: ignore[type-arg] # hatchling's class is generic over its own config
    """Adds the documentation; an editable installation reads it from the repository."""

    def dependencies(self) -> list[str]:
        """What a wheel's build environment needs for the built pages; pip and build ask for it before they build."""
        if self.target_name != "wheel" or os.environ.get(SWITCH) != "1" or self._is_built:
            return []
        core = self.metadata.core
        return [*core.dependencies, *(one for extra in EXTRAS for one in core.optional_dependencies[extra])]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files."""
        if version == "editable":
            return
        include = build_data["force_include"]
        if not (Path(self.root) / "docs").is_dir():  # as in an image that is built without it
            return
        if self.target_name == "wheel":
            for name in ("docs", "examples", "CHANGELOG.md"):
                include[str(Path(self.root) / name)] = f"{TARGET}/{name}"
        if self._is_built:
            return
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if not missing:
            self._folder = tempfile.TemporaryDirectory()
            command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", f"{self._folder.name}/state"]
            subprocess.run([*command, "docs", f"{self._folder.name}/html"], cwd=self.root, check=True)
            include[f"{self._folder.name}/html"] = f"{TARGET}/html"
        elif self.target_name == "sdist" or os.environ.get(SWITCH) == "1":
            raise RuntimeError(
                f"The documentation can't be built here: {', '.join(missing)} are not installed."
            )

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling when the file is written."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    @property
    def _is_built(self) -> bool:
        """True in an unpacked sdist, whose package has the built pages."""
        return (Path(self.root) / TARGET / "html" / "index.html").is_file()
