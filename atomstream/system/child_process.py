"""Commands that start a module of atomstream in a separate process: analysis workers, and the server of the demo.

The child finds this package wherever the parent has found it, and nothing in the present folder: users start a server
in a folder with scripts of their own, and one named ``types.py`` or ``scipy.py`` would be imported in place of the
library.

In a frozen application (PyInstaller, cx_Freeze, Nuitka) ``sys.executable`` is the application, not Python. It is
started again with arguments that :func:`freeze_support` recognises, as in :func:`multiprocessing.freeze_support`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from atomstream.errors import ConfigError

CHILD_ARGUMENT: Final = "--atomstream-child"
"""First argument of a frozen application that is to run a module of atomstream; the module's name follows."""

MODULES: Final = frozenset(
    {
        "atomstream.server.live.worker_entry",
        "atomstream.cli.embedded_child",
        "atomstream.record.source_search",
    }
)
"""The modules that may be started; each has a function ``main``."""

_ROOT: Final = Path(__file__).resolve().parents[2]
"""Folder (or zip file) of the package."""

_START: Final = (
    "import sys; root, name = sys.argv[1:3]; "
    "libraries = [k for k, path in enumerate(sys.path) if 'site-packages' in path or 'dist-packages' in path]; "
    "sys.path.insert(libraries[0] if libraries else len(sys.path), root); "
    "from importlib import import_module; import_module(name).main()"
)
"""The package comes after Python's own library and before others, among which may be another atomstream."""

_supported: list[bool] = []
"""Not empty once :func:`freeze_support` was called in this process."""


def freeze_support() -> None:
    """Call this first in the main script of a frozen application that runs an atomstream server.

    In a process that the server has started for its analysis it does not return: it does the work and exits. In every
    other process it does nothing. The command line (``atomstream.cli.main``) calls it itself.
    """
    _supported.append(True)
    if sys.argv[1:2] != [CHILD_ARGUMENT] or sys.argv[2:3] == [] or sys.argv[2] not in MODULES:
        return
    module = sys.argv[2]
    del sys.argv[1:]
    importlib.import_module(module).main()
    sys.exit(0)


def child_command(module: str) -> tuple[str, ...]:
    """The command line that runs ``main()`` of ``module``, one of :data:`MODULES`.

    Raises:
        ConfigError: this is a frozen application without :func:`freeze_support`.
    """
    if module not in MODULES:
        raise ValueError(f"{module} is not one of {', '.join(sorted(MODULES))}")
    if not getattr(sys, "frozen", False):
        # -P: neither the present folder nor that of a script is searched for modules.
        return (sys.executable, "-P", "-c", _START, str(_ROOT), module)
    if not _supported:
        raise ConfigError(
            "This is a frozen application, and it would be started again in place of a process of atomstream. Call "
            "atomstream.freeze_support() in the first lines of its main script, under if __name__ == '__main__'."
        )
    return (sys.executable, CHILD_ARGUMENT, module)


def child_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a child process of atomstream: relative entries of ``PYTHONPATH`` become absolute, empty ones
    are left out.

    An empty entry, as ``PYTHONPATH=$PYTHONPATH:/lab`` makes, is the present folder.
    """
    made = dict(environment)
    entries = [os.path.abspath(path) for path in made.pop("PYTHONPATH", "").split(os.pathsep) if path]
    if entries:
        made["PYTHONPATH"] = os.pathsep.join(entries)
    return made
