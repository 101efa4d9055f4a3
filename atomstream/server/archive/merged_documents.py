"""The documents of a stream's Zarr group as readers of the store need them, if its chunks are merged there.

In the folder of a server each chunk is an object. In the store the array ``frames`` has larger ones, and other keys.
While the stream grows, its newest chunks are not merged yet: so the arrays end with the last merged one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from atomstream.errors import StreamError
from atomstream.server.archive.merged_chunks import Grid
from atomstream.server.archive.mirror import GROUP
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES

FRAMES_DOCUMENT: Final = f"frames.zarr/{FRAMES}/{DOCUMENT}"


def published(name: str, content: bytes, grid: Grid, n_objects: int | None) -> bytes:
    """The document of this name for the store. The arrays end after ``n_objects`` objects; None: nowhere.

    Other files are returned unchanged.

    Raises:
        StreamError: the document is damaged.
    """
    if grid.n_chunks == 1 or not name.endswith(DOCUMENT):
        return content
    limits = {}
    if n_objects is not None:
        limits = {"time": n_objects * grid.n_chunks * grid.chunk_size, "chunk": n_objects * grid.n_chunks}
    try:
        document = json.loads(content)
        if name == GROUP:
            for array, its_document in document["consolidated_metadata"]["metadata"].items():
                _change(its_document, limits, grid if array == FRAMES else None)
        else:
            _change(document, limits, grid if name == FRAMES_DOCUMENT else None)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise StreamError(f"{name} is damaged, and not copied to the store: {error}.") from None
    return json.dumps(document, allow_nan=False).encode()


def _change(array: dict[str, Any], limits: Mapping[str, int], grid: Grid | None) -> None:
    names = array.get("dimension_names") or [None] * len(array["shape"])
    array["shape"] = [
        min(length, limits.get(name, length)) for name, length in zip(names, array["shape"], strict=True)
    ]
    if grid is not None:
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = grid.n_chunks * grid.chunk_size
        array["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}


def without_frames(group: bytes) -> bytes:
    """The description of a Zarr group without its array ``frames``; a damaged description is returned unchanged."""
    try:
        document = json.loads(group)
        document["consolidated_metadata"]["metadata"].pop(FRAMES, None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return group
    return json.dumps(document, allow_nan=False).encode()
