"""One stream in the asyncio reading client: the frames and results of :class:`StreamData`, awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio.from_thread
import anyio.to_thread
import numpy as np
import numpy.typing as npt

from atomstream.client.arguments import Texts
from atomstream.client.stream_data import LazyFrames, StreamData, StreamReader
from atomstream.client.stream_entry import StreamEntry
from atomstream.results import Event, Measurement

if TYPE_CHECKING:
    import pandas
    import xarray

T = TypeVar("T")


class AsyncFrames:
    """A read-only array of frames: ``await frames[10:20]`` reads the chunks that it needs, as :class:`LazyFrames`."""

    ndim: Final = 3

    def __init__(self, frames: LazyFrames) -> None:
        self._frames = frames
        self.shape = frames.shape
        self.dtype = frames.dtype
        self.chunk_size = frames.chunk_size
        """Frames in a chunk of the stream, which is read as a whole."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Awaitable[npt.NDArray[Any]]:
        """Return an awaitable of the array that numpy gives for this index."""
        return anyio.to_thread.run_sync(self._frames.__getitem__, key)

    async def kept(self) -> npt.NDArray[np.bool_]:
        """Whether the server has each frame, (n,): False for removed and for never received ones."""
        return await anyio.to_thread.run_sync(lambda: self._frames.kept)

    def __repr__(self) -> str:
        return f"<AsyncFrames {self.shape} {self.dtype}>"


class AsyncStreamData:
    """Frames, results, events and newest values of one stream. ``info`` is its entry in the list.

    Arrays are put together in a worker thread, so that the event loop goes on.
    """

    def __init__(self, info: StreamEntry, client: StreamReader) -> None:
        self.info = info
        self._data = StreamData(info, client, _in_loop)

    def refresh(self) -> None:
        """Read the description and the newest values again: a running stream grows."""
        self._data.refresh()

    async def frames(self) -> AsyncFrames:
        """The frames as a read-only array (n, H, W), as of the last :meth:`refresh`. See :attr:`StreamData.frames`."""
        return AsyncFrames(await _in_thread(lambda: self._data.frames))

    async def results(self, names: Texts = None) -> xarray.Dataset:
        """Results of each stored frame. See :meth:`StreamData.results`."""
        return await _in_thread(lambda: self._data.results(names))

    async def to_pandas(self, names: Texts = None) -> pandas.DataFrame:
        """Results of each stored frame as a DataFrame. See :meth:`StreamData.to_pandas`."""
        return await _in_thread(lambda: self._data.to_pandas(names))

    async def values(self) -> dict[str, Measurement]:
        """The newest value of each result, with its uncertainty or the reason why there is none."""
        return await _in_thread(lambda: self._data.values)

    async def events(self) -> list[Event]:
        """Events of users and of the analysis, by time."""
        return await _in_thread(lambda: self._data.events)

    def __repr__(self) -> str:
        return repr(self._data).replace("<StreamData", "<AsyncStreamData", 1)


def _in_loop(verb: Callable[[], Awaitable[T]]) -> T:
    """Return the result of ``await verb()`` in the event loop that started this worker thread."""

    async def awaited() -> T:
        return await verb()

    return anyio.from_thread.run(awaited)


async def _in_thread(read: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(read)
