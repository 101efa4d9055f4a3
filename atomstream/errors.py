"""Everything atomstream raises, as one tree.

::

    AtomstreamError
    ├── ConfigError (ValueError)              a setting that can't be meant
    ├── ServiceError                          the server, or the way to it
    │   ├── ConnectionFailedError   retry     not reached, reset, timed out
    │   ├── ServerBusyError         retry     408, 425, 429, 5xx; a garbled 2xx
    │   ├── UrlExpiredError         retry     an upload URL's 403: ask for a fresh one
    │   ├── AuthenticationError     (paused)  401/403 on the API: the key is wrong or lacks a right
    │   ├── RejectedError           no        any other 4xx
    │   │   ├── NotFoundError       no        404/410
    │   │   └── ConflictError       no        409
    │   └── ChecksumMismatchError   retry     the server received other bytes than were sent
    ├── LinkError                             the stream was created, but a sample, tag or project not linked
    ├── StreamError                           one stream's own
    │   ├── UnknownStreamError (KeyError)     no such data_id here
    │   ├── StreamFinalizedError              a push after finalize
    │   ├── StreamGoneError                   the server no longer knows the stream (404/410)
    │   ├── ChunkConflictError (ValueError)   an index pushed again with other frames
    │   ├── BufferFullError                   no room, and the policy says raise (or full_timeout_s ran out)
    │   ├── DrainTimeoutError (TimeoutError)  finalize or flush ran out of time; carries the report
    │   └── SpoolLockedError                  another process owns this stream's spool
    ├── ShardError (ValueError)               bytes that are not a valid shard
    ├── SpoolError                            the disk under the spool failed
    │   ├── SpoolFullError                    no room in it, by its bound or on its disk
    │   └── RecordCorruptError                a record whose bytes are not the ones that were written
    └── ClosedError                           the streamer is closed, broken, or was forked

``retriable`` says whether trying the same thing again can help; policy asks the error, nobody else decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AtomstreamError(Exception):
    """Base of all errors raised on purpose by atomstream."""

    retriable: ClassVar[bool] = False


class ConfigError(AtomstreamError, ValueError):
    """A setting or argument that can't be meant; the sentence says what is allowed."""


class ServiceError(AtomstreamError):
    """The server refused or could not be reached.

    ``status`` is the HTTP status (None where there was no answer), ``retry_after_s`` the server's own wish in
    seconds, ``detail`` what it said.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        detail: Any = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


class ConnectionFailedError(ServiceError):
    """The server was not reached, or the connection broke.

    ``never_sent`` is True only where the request certainly did not reach the server (no connection was
    made): then even a request that creates something may be repeated.
    """

    retriable = True

    def __init__(self, message: str, *, never_sent: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.never_sent = never_sent


class ServerBusyError(ServiceError):
    """The server answered that it can't now (408, 425, 429, 5xx), or answered garbage."""

    retriable = True


class UrlExpiredError(ServiceError):
    """The signed upload URL is no longer valid: ask for a fresh one."""

    retriable = True


class ChecksumMismatchError(ServiceError):
    """The server's checksum of the body differs from ours: the upload is repeated."""

    retriable = True


class AuthenticationError(ServiceError):
    """The API key is missing, wrong, or lacks the right (401/403). Nothing is given up: streams pause."""


class RejectedError(ServiceError):
    """The server will never take this request as it is (a 4xx)."""


class NotFoundError(RejectedError):
    """404 or 410: what the request names is not there."""


class ConflictError(RejectedError):
    """409: what is there already differs."""


class LinkError(AtomstreamError):
    """The stream was created, but linking it failed; it has been ended. ``data_id`` names it."""

    def __init__(self, message: str, *, data_id: str) -> None:
        super().__init__(message)
        self.data_id = data_id


class StreamError(AtomstreamError):
    """Something about one stream; ``data_id`` names it and ``index`` the chunk, where one is meant."""

    def __init__(self, message: str, *, data_id: str = "", index: int | None = None) -> None:
        super().__init__(message)
        self.data_id = data_id
        self.index = index


class UnknownStreamError(StreamError, KeyError):
    """This streamer did not initialize (or resume) that ``data_id``."""

    def __str__(self) -> str:  # KeyError would print the sentence in quotes
        return str(self.args[0])


class StreamFinalizedError(StreamError):
    """Frames after ``finalize``: the stream takes no more."""


class StreamGoneError(StreamError):
    """The server no longer knows the stream; what was not uploaded is kept and reported."""


class ChunkConflictError(StreamError, ValueError):
    """A chunk index belongs to one content, and this content differs from the one pushed first."""


class BufferFullError(StreamError):
    """No room for the chunk; it used no index and nothing that was accepted is affected."""


class DrainTimeoutError(StreamError, TimeoutError):
    """Time ran out before everything was delivered; nothing was discarded. ``report`` has the counts."""

    def __init__(self, message: str, *, data_id: str = "", report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, data_id=data_id)
        self.report = dict(report or {})


class SpoolLockedError(StreamError):
    """Another process owns this stream's spool folder."""


class ShardError(AtomstreamError, ValueError):
    """Bytes that are not a valid shard: what is wrong, and where."""


class SpoolError(AtomstreamError):
    """The disk under the spool failed; the stream goes on from memory."""


class SpoolFullError(SpoolError):
    """No room for the record: the spool's bound, the free space it must leave, or the disk itself.

    Nothing that was written before is affected; room comes back as uploads are confirmed.
    """


class RecordCorruptError(SpoolError):
    """A record's bytes are not the ones that were written: it is quarantined, and costs only itself."""


class ClosedError(AtomstreamError):
    """The streamer was closed, its background work broke, or this process is a fork of its owner."""
