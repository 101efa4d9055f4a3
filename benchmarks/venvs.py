"""Other programs for comparison, each in its own venv: an existing one, or one made in a cache folder.

The client of the hosted service is GPL-3.0: it is installed and run as a program; its code is not read or copied.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from filelock import FileLock
from platformdirs import user_cache_path


@dataclass(frozen=True, slots=True)
class Rival:
    """Packages to install, and the environment variable that names a Python with the program."""

    requirement: str
    variable: str
    additional: tuple[str, ...] = ()


PEER: Final = Rival("atomscale==0.21.10", "ATOMSTREAM_PEER_PYTHON")
ACQUIRE: Final = Rival("acquire-zarr==0.10.0", "ATOMSTREAM_ACQUIRE_PYTHON", ("numpy",))


class NotInstalledError(Exception):
    """The packages of a rival can't be installed; the message has the reason."""


@cache
def python_of(rival: Rival) -> Path | None:
    """Return a Python with ``rival``; None if its variable is empty or it can't be installed (reported on stderr)."""
    given = os.environ.get(rival.variable)
    if given is not None:
        return Path(given) if given else None
    try:
        return installed(rival)
    except NotInstalledError as error:
        print(f"{rival.requirement} is left out: {error}", file=sys.stderr)
        return None


def installed(rival: Rival) -> Path:
    """Return the Python of the venv of ``rival``, which is made once on a machine, in the user's cache folder.

    Raises:
        NotInstalledError: It can't be made.
    """
    venv = user_cache_path("atomstream-benchmarks", appauthor=False) / rival.requirement.replace("==", "-")
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    venv.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{venv}.lock"):  # several processes may ask for it at the same time
        if not _has(python, rival):
            _make(venv, python, rival)
    return python


def _has(python: Path, rival: Rival) -> bool:
    name = rival.requirement.split("==", maxsplit=1)[0]
    ask = f"import importlib.metadata as m; m.version({name!r})"
    return (
        python.exists()
        and subprocess.run([python, "-c", ask], capture_output=True, check=False).returncode == 0
    )


def _make(venv: Path, python: Path, rival: Rival) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(venv)], [*pip, rival.requirement, *rival.additional]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise NotInstalledError(f"{rival.requirement} could not be installed here: {last}")
