"""``atomstream docs``: the documentation of this version, in the browser, without internet."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Final

import click

from atomstream.cli.console import console
from atomstream.cli.exit_codes import ExitCode
from atomstream.errors import ConfigError
from atomstream.system.files import LOCAL
from atomstream.version import __version__

PACKAGE: Final = Path(__file__).parents[1]
SHIPPED: Final = PACKAGE / "documentation"
"""In a wheel: the pages and, if the wheel was built with Sphinx, the built HTML in ``html``."""
NEEDS: Final = ("sphinx", "furo", "myst_parser", "scipy")


@click.command()
@click.option(
    "--open/--no-open",
    "show",
    default=True,
    help="Open a browser (default), or only print the path of the pages.",
)
def docs(show: bool) -> int:
    """Open the documentation of this version in a browser. It is on this computer; no internet is needed.

    Where the package came without the built pages, they are built once, which needs the extra "docs" and takes half a
    minute.
    """
    page = built_documentation() / "index.html"
    click.echo(page)
    if show and not webbrowser.open(page.as_uri()):
        console.write("No browser was found: open this file in one.")
    return ExitCode.DONE


def built_documentation() -> Path:
    """The folder of the built pages; it is built if there is none.

    Raises:
        ConfigError: the pages are not built, and can't be built here.
    """
    if (SHIPPED / "html" / "index.html").is_file():
        return SHIPPED / "html"
    pages = next(
        (root / "docs" for root in (SHIPPED, PACKAGE.parent) if (root / "docs" / "conf.py").is_file()), None
    )
    if pages is None:
        raise ConfigError(
            "This installation has no documentation: install atomstream from its wheel or repository."
        )
    in_package = pages.parent == SHIPPED
    target = _cache() if in_package else PACKAGE.parent / "build" / "docs"
    if in_package and (target / "index.html").is_file():
        return target
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"The pages are not built here, and this needs {', '.join(missing)}: pip install "
            f'"atomstream[server,docs]". The unbuilt pages, which any editor shows, are in {pages}.'
        )
    _build(pages, target)
    return target


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("atomstream") / f"docs-{__version__}"


def _build(pages: Path, target: Path) -> None:
    """Build beside ``target`` and rename, so that an interrupted build is not taken for a finished one."""
    console.write("Building the documentation, half a minute ...")
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        "html",
        "-d",
        f"{part}.state",
        str(pages),
        str(part),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"The documentation could not be built: {done.stderr.strip()[-2000:]}")
    shutil.rmtree(target, ignore_errors=True)
    LOCAL.rename(part, target)
