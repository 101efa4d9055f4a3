"""Archives of several servers on one store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.index_ranges import IndexSet
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.store import Store, StoreUnavailableError
from tests.server.archive.archive_helpers import ABOUT, frames_of

Server = Callable[[str], CachedArchive]
SHARD = "streams/one/frames.zarr/frames/c/{}/0/0"


class UnreliableStore(LocalStore):
    """A folder that can become unreachable, as S3 can: ``left`` is the number of further requests that are answered."""

    left: int | None = None

    def _path(self, key: str) -> Path:
        if self.left is not None:
            if not self.left:
                raise StoreUnavailableError("the store is unreachable", key)
            self.left -= 1
        return super()._path(key)


def servers(store: Store, folder: Path) -> Server:
    """Create the stream ``one``; opens it with the cache folder of the server of that name."""
    shared = SharedStream(store, "one")
    CachedArchive.create_shared(folder / "first" / "one", ABOUT, shared)
    return servers_of(store, folder)


def servers_of(store: Store, folder: Path) -> Server:
    """The same for a stream that exists."""
    return lambda name: CachedArchive.open_shared(folder / name / "one", SharedStream(store, "one"))


def indices_of(text: str) -> IndexSet:
    """The indices in a text such as ``"3-5,9"``."""
    return IndexSet.parse(text, max_index=99)


def all_frames(*indices: int) -> Any:
    """The frames of these chunks, joined."""
    return np.concatenate([frames_of(index) for index in indices])
