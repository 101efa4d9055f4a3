"""A stream's ``stream.json``: read with a clear error, and shown as attributes of the Zarr group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from atomstream.errors import StreamError
from atomstream.server.archive_gaps import parse_ranges

ABOUT: Final = "stream.json"
MAX_LOST: Final = 100_000
"""More lost indices than that are not listed: a client that lost so many has a story to tell, not a list."""


def read_about(folder: Path) -> dict[str, Any]:
    """The description in ``folder``.

    Raises:
        StreamError: it is missing or damaged. OSError: the disk's.
    """
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except FileNotFoundError:
        raise StreamError(f"{folder} holds no stream: it has no {ABOUT}.", data_id=folder.name) from None
    except ValueError as error:
        raise StreamError(f"{folder / ABOUT} is damaged: {error}.", data_id=folder.name) from None
    if not isinstance(about, dict):
        raise StreamError(f"{folder / ABOUT} does not describe a stream.", data_id=folder.name)
    return about


def plain(value: Any) -> Any:
    """A thing with a name by its name: attributes are for people, and netCDF takes no nested ones."""
    if isinstance(value, dict):
        return value.get("name")
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def lost_in(about: Mapping[str, Any]) -> set[int]:
    """The lost indices that a description lists, at most ``MAX_LOST``."""
    return set(islice(parse_ranges(str(about.get("lost") or "")), MAX_LOST))
