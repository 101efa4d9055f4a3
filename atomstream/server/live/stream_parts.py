"""The open files of one stream, and what its analysis shares with the other streams."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.analyzer_client import AnalysisResources
from atomstream.server.live.annotations import Annotations
from atomstream.server.live.result_store import ResultStore
from atomstream.server.live.shared_records import SharedWriter
from atomstream.server.streams.ingest import run_in

A = TypeVar("A", bound=StreamArchive)
A_co = TypeVar("A_co", bound=StreamArchive, covariant=True)


@dataclass(frozen=True, slots=True)
class StreamParts(Generic[A_co]):
    """What the classes that analyse a stream, or serve its results, work on."""

    archive: A_co
    metadata: StreamMetadata
    resources: AnalysisResources
    """Worker processes, memory and threads, which all streams share."""
    store: ResultStore
    annotations: Annotations


async def open_parts(
    archive: A, metadata: StreamMetadata, resources: AnalysisResources, shared: SharedWriter | None = None
) -> StreamParts[A]:
    """Open the files of a stream's results and annotations, in a thread; raises OSError.

    With ``shared`` each record goes to the shared log of a cluster first.
    """
    return await run_in(resources.threads, partial(_open_parts, archive, metadata, resources, shared))


def _open_parts(
    archive: A, metadata: StreamMetadata, resources: AnalysisResources, shared: SharedWriter | None
) -> StreamParts[A]:
    store = ResultStore(archive, metadata.fps, shared)
    path = store.folder / "inputs.log"
    try:
        report = partial(archive.files.note_damage, path)
        is_lost = store.log.seq > 0 and not (path.is_file() and path.stat().st_size)
        annotations = Annotations(path, archive.files.file_system, report)
        if is_lost and not annotations.entries:
            report("it was missing or empty; marks, regions and a calibration that were set are lost")
    except BaseException:
        store.close()
        raise
    return StreamParts(archive, metadata, resources, store, annotations)
