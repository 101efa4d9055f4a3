"""The reading client for scripts and notebooks."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atomstream.client.async_client import AsyncClient, Kind, Range, Times
from atomstream.client.signal import Signal
from atomstream.client.stream_data import StreamData
from atomstream.client.stream_entry import StreamEntry
from atomstream.errors import NotFoundError
from atomstream.streaming.portal import LoopThread


class Client:
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
        keywords: str | Iterable[str] = (),
        *,
        data_ids: Iterable[str] = (),
        physical_sample_ids: Iterable[str] = (),
        project_ids: Iterable[str] = (),
        status: str | None = None,
        growth_length: Range = (None, None),
        upload_datetime: Times = (None, None),
        kind: Kind = "frames",
    ) -> list[StreamEntry]:
        """The streams that fit all conditions, the newest first. See :meth:`AsyncClient.search`."""
        return self._loop_thread.call(
            partial(
                self._client.search,
                keywords,
                data_ids=data_ids,
                physical_sample_ids=physical_sample_ids,
                project_ids=project_ids,
                status=status,
                growth_length=growth_length,
                upload_datetime=upload_datetime,
                kind=kind,
            )
        )

    def get(self, data_id: str) -> StreamData:
        """The frames and results of one stream. Its description is read now, frames and results when they are used.

        Raises:
            NotFoundError: there is no such stream.
        """
        entries = self.search(data_ids=[data_id])
        if not entries:
            raise NotFoundError(f"There is no stream {data_id} (or this API key may not see it).", status=404)
        return StreamData(entries[0], self._client, self._loop_thread.call)

    def signals(self, data_id: str, channels: Iterable[str] = ()) -> dict[str, Signal]:
        """All points of a stream of signals, by channel. See :meth:`AsyncClient.signals`."""
        return self._loop_thread.call(partial(self._client.signals, data_id, channels))

    def samples(self) -> list[dict[str, Any]]:
        """All physical samples: maps with ``id`` and ``name``, and what else the server states."""
        return self._loop_thread.call(self._client.samples)

    def projects(self) -> list[dict[str, Any]]:
        """All projects: maps with ``id`` and ``name``, and what else the server states."""
        return self._loop_thread.call(self._client.projects)

    def download(self, data_id: str, target: str | Path, *, step: int = 1, pixels: bool = True) -> Path:
        """Export a stream to a file whose ending is the format. See :meth:`AsyncClient.download`."""
        return self._loop_thread.call(
            partial(self._client.download, data_id, target, step=step, pixels=pixels)
        )

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
