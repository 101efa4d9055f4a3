"""Libraries that only some functions need: they are imported at the first use."""

from __future__ import annotations

import importlib
from typing import Any


def load(module: str, what: str, extra: str) -> Any:
    """Import ``module``, which ``what`` needs.

    Raises:
        ImportError: it is not installed; the message names the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            raise
        raise ImportError(
            f'{what} needs {package}: pip install "atomstream[{extra}]".', name=package
        ) from None
