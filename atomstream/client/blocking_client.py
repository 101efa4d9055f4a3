"""The reading client for scripts and notebooks."""

from __future__ import annotations

import atexit
import os
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from atomstream.client.arguments import Range, Texts, Times
from atomstream.client.async_client import AsyncClient, Kind
from atomstream.client.blocking_hosted_calls import BlockingHostedCalls
from atomstream.client.signal import Signal
from atomstream.client.stream_data import StreamData
from atomstream.client.stream_entry import StreamEntry
from atomstream.errors import ClosedError
from atomstream.streaming.portal import LoopThread

T = TypeVar("T")


class Client(BlockingHostedCalls):
    """Searches the streams of a server and reads their frames and results, from any thread.

    The methods are those of :class:`AsyncClient`, and :meth:`get`. Use ``with``, or call :meth:`close` at the end::

        with Client() as client:
            newest = client.search("GaN")[0]
            growth = client.get(newest.data_id)
            last = growth.frames[-1]
            rate = growth.results()["growth_rate_ml_s"]

    Args:
        api_key: key of the server. None: ``$ATOMSTREAM_API_KEY``, else that of ``atomstream login``.
        endpoint: URL of the server. None: ``$ATOMSTREAM_ENDPOINT``, else that of ``atomstream login``.
        request_timeout_s: limit of a request in seconds, from 0.001.

    Raises:
        ConfigError: there is no key or no endpoint, or one of them is invalid.
    """

    def __init__(
        self, api_key: str | None = None, endpoint: str | None = None, *, request_timeout_s: float = 30.0
    ) -> None:
        self._client = AsyncClient(api_key, endpoint, request_timeout_s=request_timeout_s)
        self._pid = os.getpid()
        self._loop_thread = LoopThread()
        _open_clients.add(self)

    def search(
        self,
        keywords: Texts = None,
        *,
        data_ids: Texts = None,
        physical_sample_ids: Texts = None,
        project_ids: Texts = None,
        status: str | None = None,
        growth_length: Range = (None, None),
        upload_datetime: Times = (None, None),
        last_updated: Times = (None, None),
        last_accessed_datetime: Times | None = None,
        include_organization_data: bool = True,
        data_type: str | None = None,
        kind: Kind = "frames",
    ) -> list[StreamEntry]:
        """The streams that fit all conditions, the newest first. See :meth:`AsyncClient.search`."""
        return self._call(
            partial(
                self._client.search,
                keywords,
                data_ids=data_ids,
                physical_sample_ids=physical_sample_ids,
                project_ids=project_ids,
                status=status,
                growth_length=growth_length,
                upload_datetime=upload_datetime,
                last_updated=last_updated,
                last_accessed_datetime=last_accessed_datetime,
                include_organization_data=include_organization_data,
                data_type=data_type,
                kind=kind,
            )
        )

    @overload
    def get(self, data_ids: str) -> StreamData: ...  # type: ignore[overload-overlap] # a string is one id
    @overload
    def get(self, data_ids: Iterable[str]) -> list[StreamData]: ...

    def get(self, data_ids: str | Iterable[str]) -> StreamData | list[StreamData]:
        """The frames and results of one stream, or a list for several ids, in their order.

        The descriptions are read now, frames and results when they are used.

        Raises:
            NotFoundError: there is no such stream. ConfigError: it is a stream of signals, or an id is not a string.
        """
        if isinstance(data_ids, str):
            return self._data(self._call(partial(self._client.entry, data_ids)))
        return [self._data(entry) for entry in self._call(partial(self._client.entries, data_ids))]

    @property
    def _hosted(self) -> AsyncClient:
        return self._client

    def _data(self, entry: StreamEntry) -> StreamData:
        return StreamData(entry, self._client, self._call)

    def signals(self, data_id: str, channels: Texts = None) -> dict[str, Signal]:
        """All points of a stream of signals, by channel. See :meth:`AsyncClient.signals`."""
        return self._call(partial(self._client.signals, data_id, channels))

    def samples(self) -> list[dict[str, Any]]:
        """All physical samples: maps with ``id`` and ``name``, and what else the server states."""
        return self._call(self._client.samples)

    def projects(self) -> list[dict[str, Any]]:
        """All projects: maps with ``id`` and ``name``, and what else the server states."""
        return self._call(self._client.projects)

    def download(
        self,
        data_id: str,
        target: str | Path,
        *,
        step: int = 1,
        pixels: bool = True,
        at_s: float | None = None,
    ) -> Path:
        """Export a stream to a file whose ending is the format. See :meth:`AsyncClient.download`."""
        return self._call(
            partial(self._client.download, data_id, target, step=step, pixels=pixels, at_s=at_s)
        )

    def _call(self, verb: Callable[[], Awaitable[T]]) -> T:
        try:
            return self._loop_thread.call(verb)
        except ClosedError:
            if self._loop_thread.running:
                raise
            raise ClosedError("The client is closed; make a new one.") from None

    def close(self) -> None:
        """Close all connections. Further calls have no effect. The interpreter's exit closes what is still open."""
        _open_clients.discard(self)
        if self._loop_thread.running:
            self._loop_thread.call(self._client.close)
            self._loop_thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_open_clients: set[Client] = set()
"""Clients that were not closed: streams that they returned still read from them."""


def _close_all() -> None:
    for client in tuple(_open_clients):
        if client._pid == os.getpid():
            client.close()


atexit.register(_close_all)
