"""The reading client for asyncio applications."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, Self, TypeAlias, overload

import numpy as np

from atomstream.checks import checked_path, integer_in_range, number_in_range
from atomstream.client.arguments import (
    Range,
    Texts,
    Times,
    data_types,
    flag,
    ids,
    moment,
    number,
    one_id,
    pair,
    statuses,
    texts,
)
from atomstream.client.async_stream_data import AsyncStreamData
from atomstream.client.hosted_calls import HostedCalls
from atomstream.client.signal import Signal, signals_of
from atomstream.client.stream_entry import FRAMES_TYPE, SIGNALS_TYPE, StreamEntry
from atomstream.errors import ConfigError, NotFoundError, ServerBusyError
from atomstream.login import resolve_login
from atomstream.protocol import PROJECTS_PATH, SAMPLES_PATH
from atomstream.records import Frames
from atomstream.results import TIME, unpacked
from atomstream.shard import DtypeName, decode_shard
from atomstream.system.files import LOCAL

if TYPE_CHECKING:
    from atomstream.service.api import ServiceApi

ROTATES: Final[dict[str | None, bool]] = {"rheed_rotating": True, "rheed_stationary": False}
IDS_AT_ONCE: Final = 100
"""Ids in one request: its address must stay short."""

Kind: TypeAlias = Literal["frames", "signals", "all"]


class AsyncClient(HostedCalls):
    """Searches the streams of a server and reads their frames and results. Use ``async with``, or await ``close``.

    :meth:`search`, :meth:`samples` and :meth:`projects` work with the hosted service too. Frames, results and exports
    need an atomstream server. All methods raise ``ServiceError`` if the server is not reached or refuses.

    Args:
        api_key: key of the server. None: ``$ATOMSTREAM_API_KEY``, else that of ``atomstream login``.
        endpoint: URL of the server. None: ``$ATOMSTREAM_ENDPOINT``, else that of ``atomstream login``.
        request_timeout_s: limit of a request in seconds, from 0.001.

    Raises:
        ConfigError: there is no key or no endpoint, or an argument is invalid.
    """

    def __init__(
        self, api_key: str | None = None, endpoint: str | None = None, *, request_timeout_s: float = 30.0
    ) -> None:
        number_in_range("request_timeout_s", request_timeout_s, 1e-3, 1e9)
        self._login = resolve_login(api_key, endpoint)
        self._timeout_s = request_timeout_s
        self._api: ServiceApi | None = None

    @property
    def api(self) -> ServiceApi:
        """The HTTP calls; made at the first use, in the loop that uses it."""
        if self._api is None:
            from atomstream.service.api import ServiceApi  # it imports aiohttp

            self._api = ServiceApi(
                self._login.endpoint,
                self._login.api_key,
                request_timeout_s=self._timeout_s,
                upload_timeout_s=self._timeout_s,
                connections=8,
            )
        return self._api

    async def search(
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
        """The streams that fit all conditions, the newest first.

        Args:
            keywords: words that are all in the stream's name, sample or tags.
            data_ids: ids of streams, or one id.
            physical_sample_ids: ids of samples, or one id.
            project_ids: ids of projects, or one id.
            status: a status such as ``"success"``; None or ``"all"``: any.
            growth_length: shortest and longest length in seconds; None: no limit.
            upload_datetime: earliest and latest time of creation; one without a time zone is local time.
            last_updated: the same for the time of the last change.
            last_accessed_datetime: another name of ``last_updated``.
            include_organization_data: False: only streams of the key's owner (hosted service; those of an atomstream
                server have one owner).
            data_type: a type of the hosted service in place of ``kind``: ``"rheed"``, ``"rheed_stationary"``,
                ``"rheed_rotating"``, ``"tool_state"``, ``"all"`` and others.
            kind: ``"frames"``, ``"signals"`` (of instruments; their length is given as 0), or ``"all"``.

        Raises:
            ConfigError: an argument is not of these types, or ``kind``, ``data_type`` or ``status`` is not one of the
                known ones.
        """
        filters: dict[str, str | list[str]] = {
            "keywords": [word for word in texts("keywords", keywords) if word.strip()],
            "data_ids": texts("data_ids", data_ids),
            "physical_sample_ids": texts("physical_sample_ids", physical_sample_ids),
            "project_ids": texts("project_ids", project_ids),
            "status": statuses(status),
            "data_type": list(_data_types(kind) if data_type is None else data_types(data_type, kind)),
        }
        if not flag("include_organization_data", include_organization_data):
            filters["include_organization_data"] = "False"
        for end, length in zip(("min", "max"), pair("growth_length", growth_length), strict=True):
            filters[f"growth_length_{end}"] = [] if length is None else [number("growth_length", length)]
        if last_accessed_datetime is not None:
            if last_updated != (None, None):
                raise ConfigError("last_accessed_datetime is another name of last_updated: give one of them.")
            last_updated = last_accessed_datetime
        for name, times in (("upload_datetime", upload_datetime), ("last_updated", last_updated)):
            for end, when in zip(("min", "max"), pair(name, times), strict=True):
                filters[f"{name}_{end}"] = [] if when is None else [moment(name, when)]
        entries = [StreamEntry.of(one) for one in await self.api.reading.entries(filters)]
        if data_type in ROTATES:
            return [entry for entry in entries if bool(entry.rpm) == ROTATES[data_type]]
        return entries

    @overload
    async def get(self, data_ids: str) -> AsyncStreamData: ...  # type: ignore[overload-overlap] # a string is one id
    @overload
    async def get(self, data_ids: Iterable[str]) -> list[AsyncStreamData]: ...

    async def get(self, data_ids: str | Iterable[str]) -> AsyncStreamData | list[AsyncStreamData]:
        """The frames and results of one stream, or a list for several ids, in their order.

        The descriptions are read now, frames and results when they are used::

            growth = await client.get(data_id)
            frames = await growth.frames()
            last = await frames[-1]

        Raises:
            NotFoundError: there is no such stream. ConfigError: it is a stream of signals, or an id is not a string.
        """
        if isinstance(data_ids, str):
            return AsyncStreamData(await self.entry(data_ids), self)
        return [AsyncStreamData(entry, self) for entry in await self.entries(data_ids)]

    def _stream(self, entry: StreamEntry) -> AsyncStreamData:
        return AsyncStreamData(entry, self)

    async def entry(self, data_id: str) -> StreamEntry:
        """The entry of one stream of frames in the list.

        Raises:
            NotFoundError: there is no such stream. ConfigError: it is a stream of signals, or the id is not a string.
        """
        return (await self.entries([one_id(data_id)]))[0]

    async def entries(self, data_ids: Iterable[str]) -> list[StreamEntry]:
        """The entries of streams of frames in the list, in the order of the ids.

        Raises:
            NotFoundError: there is no such stream. ConfigError: it is a stream of signals, or an id is not a string.
        """
        wanted = [one_id(one) for one in ids("data_ids", data_ids)]
        found: dict[str, StreamEntry] = {}
        for first in range(0, len(wanted), IDS_AT_ONCE):
            part = await self.search(data_ids=wanted[first : first + IDS_AT_ONCE], kind="all")
            found |= {entry.data_id.lower(): entry for entry in part}
        missing = [one for one in wanted if one.strip().lower() not in found]
        if missing:
            names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise NotFoundError(f"There is no stream {names} (or this API key may not see it).", status=404)
        entries = [found[one.strip().lower()] for one in wanted]
        for entry in entries:
            if entry.kind != "frames":
                raise ConfigError(
                    f"{entry.data_id} is a stream of signals and has no frames: read it with signals()."
                )
        return entries

    async def samples(self) -> list[dict[str, Any]]:
        """All physical samples: maps with ``id`` and ``name``, and what else the server states."""
        return await self.api.reading.items("physical samples", SAMPLES_PATH)

    async def projects(self) -> list[dict[str, Any]]:
        """All projects: maps with ``id`` and ``name``, and what else the server states."""
        return await self.api.reading.items("projects", PROJECTS_PATH)

    async def signals(self, data_id: str, channels: Texts = None) -> dict[str, Signal]:
        """All points of a stream of signals, by channel; of ``channels`` only, if any are named.

        Raises:
            NotFoundError: there is no such stream of signals.
        """
        wanted = texts("channels", channels)
        return signals_of(data_id, await self.api.reading.signals(one_id(data_id), wanted))

    async def analysis(self, data_id: str) -> dict[str, Any]:
        """The newest values, segments, events and geometry of a stream (see docs/live_api.md)."""
        return await self.api.reading.analysis(one_id(data_id))

    async def chunk(self, data_id: str, index: int) -> Frames:
        """The frames of one stored chunk, (n, H, W).

        Raises:
            NotFoundError: it is not stored. ShardError: its bytes are damaged.
        """
        (frames, height, width, size), dtype, body = await self.api.reading.chunk(one_id(data_id), index)
        if not 0 <= frames <= size or dtype not in ("uint8", "uint16"):
            raise ServerBusyError(
                f"The server described chunk {index} of stream {data_id} in an invalid way."
            )
        kind: DtypeName = "uint8" if dtype == "uint8" else "uint16"
        return decode_shard(body, (size, height, width), kind)[:frames]

    async def columns(self, data_id: str, names: Texts = None) -> dict[str, np.ndarray[Any, Any]]:
        """Results of all stored frames: ``frame``, ``time_seconds`` and the named columns, or all, (n,) each."""
        wanted = texts("names", names)
        parts: dict[str, list[np.ndarray[Any, Any]]] = {"frame": [], TIME: []}
        at = 0
        while True:
            reply = await self.api.reading.columns(one_id(data_id), at, wanted)
            try:
                frames = np.frombuffer(reply["frame"], "<i8")
                parts["frame"].append(frames)
                parts[TIME].append(unpacked(TIME, reply[TIME]))
                for name, raw in reply["columns"].items():
                    parts.setdefault(name, []).append(unpacked(name, raw))
                total = int(reply["total"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ServerBusyError(
                    f"The results of stream {data_id} came in an invalid form: {error!r}."
                ) from None
            at += len(frames)
            if at >= total or not len(frames):
                return _joined(parts, at)

    async def download(
        self,
        data_id: str,
        target: str | Path,
        *,
        step: int = 1,
        pixels: bool = True,
        at_s: float | None = None,
    ) -> Path:
        """Export a stream to a file; its ending is the format: h5, nxs, nc, csv, tiff, mp4, gif, png, pdf.

        Args:
            data_id: the stream.
            target: the file, which must not exist.
            step: every n-th frame.
            pixels: False: results alone (h5, nxs, nc).
            at_s: time of the picture in s after the first frame (png); None: the newest.

        Raises:
            ConfigError: the file exists or can't be written, or the name has no ending.
        """
        path = _new_file(checked_path("target", target))
        part = path.with_name(f"{path.name}.part")
        one_id(data_id)
        flag("pixels", pixels)
        integer_in_range("step", step, 1, 1 << 31)
        if at_s is not None:
            number_in_range("at_s", at_s, 0.0, 1e9, "s")
        try:
            with _opened(part) as file:
                await self.api.export_stream(
                    data_id, path.suffix[1:].lower(), file.write, step=step, pixels=pixels, at_s=at_s
                )
            LOCAL.rename(part, path)
            return path
        finally:
            part.unlink(missing_ok=True)

    async def close(self) -> None:
        """Close all connections. Further calls have no effect."""
        if self._api is not None:
            await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _data_types(kind: Any) -> tuple[str, ...]:
    # The hosted service needs no filter for frames, and it may not support ours.
    types = {"frames": (), "signals": (SIGNALS_TYPE,), "all": (FRAMES_TYPE, SIGNALS_TYPE)}
    if not isinstance(kind, str) or kind not in types:
        raise ConfigError(f"kind={kind!r} is not one of frames, signals, all.")
    return types[kind]


def _new_file(path: Path) -> Path:
    if not path.suffix or path.exists():
        raise ConfigError(f"{path}: " + ("it exists." if path.suffix else "the ending chooses the format."))
    return path


def _opened(part: Path) -> BinaryIO:
    try:
        return part.open("wb")
    except OSError as error:
        raise ConfigError(f"{part.parent}: no file can be written there ({error.strerror}).") from None


def _joined(parts: dict[str, list[np.ndarray[Any, Any]]], rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """The pieces of each column as one array. A column that began to exist while it was read lacks its first values."""
    whole = {}
    for name, pieces in parts.items():
        values = np.concatenate(pieces)
        if len(values) < rows:
            values = np.concatenate([np.full(rows - len(values), np.nan, values.dtype), values])
        whole[name] = values
    return whole
