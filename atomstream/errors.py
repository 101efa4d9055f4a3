"""All exceptions that atomstream raises, as one tree.

::

    AtomstreamError
    ├── ConfigError (ValueError)              an invalid setting or argument
    ├── ServiceError                          a request to the server failed
    │   ├── ConnectionFailedError   retry     not connected, connection lost, or timed out
    │   │   └── UntrustedServerError  retry   the server's TLS certificate is not trusted; nothing was sent
    │   ├── ServerBusyError         retry     408, 425, 429, 5xx; or a 2xx with an invalid body
    │   ├── UrlExpiredError         retry     403 for an upload URL: a new URL is needed
    │   ├── AuthenticationError     (paused)  401/403 of the API: the key is wrong or has too few rights
    │   ├── RejectedError           no        any other 4xx
    │   │   ├── NotFoundError       no        404/410
    │   │   └── ConflictError       no        409
    │   └── ChecksumMismatchError   retry     the server received other bytes than were sent
    ├── LinkError                             the stream was created, but not linked to its sample, tags or project
    ├── StreamError                           an error of one stream
    │   ├── UnknownStreamError (KeyError)     this streamer has no such data_id
    │   ├── StreamFinalizedError              a push after finalize
    │   ├── StreamGoneError                   the server has no such stream any more (404/410)
    │   ├── ChunkConflictError (ValueError)   an index was pushed again with other frames
    │   ├── BufferFullError                   no memory left, with on_full="raise" or after full_timeout_s
    │   ├── DrainTimeoutError (TimeoutError)  finalize or flush timed out; it has the report
    │   └── SpoolLockedError                  another process holds this stream's spool
    ├── CameraError                           a camera can't be opened or used
    │   ├── CameraLostError         retry     an open camera delivers no frames any more: unplugged, or switched off
    │   └── CameraEndedError                  there are no more frames: a recording, played as a camera, has ended
    ├── ShardError (ValueError)               bytes that are not a valid shard
    ├── SpoolError                            the disk of the spool failed
    │   ├── SpoolFullError                    no space, by the spool's limits or on the disk
    │   └── RecordCorruptError                a damaged record
    └── ClosedError                           the streamer is closed or failed, or the process is a fork

``retriable`` is True if the same request may succeed later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class AtomstreamError(Exception):
    """Base class of all exceptions of atomstream."""

    retriable: ClassVar[bool] = False


class ConfigError(AtomstreamError, ValueError):
    """An invalid setting or argument; the message names what is allowed."""


class ServiceError(AtomstreamError):
    """A request to the server failed.

    ``status`` is the HTTP status (None without a response), ``retry_after_s`` the delay in seconds that the server
    asked for, and ``detail`` the error from the response body.
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
    """The server could not be reached, or the connection was lost.

    ``never_sent`` is True only if the request certainly did not reach the server, because no connection was
    made. Then even a request that creates something may be repeated.
    """

    retriable = True

    def __init__(self, message: str, *, never_sent: bool = False, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.never_sent = never_sent


class UntrustedServerError(ConnectionFailedError):
    """The TLS certificate of the server is not trusted, or is not the pinned one. Nothing was sent."""


class ServerBusyError(ServiceError):
    """The server can't handle the request now (408, 425, 429, 5xx), or its response is invalid."""

    retriable = True


class UrlExpiredError(ServiceError):
    """The signed upload URL has expired; the next attempt requests a new one."""

    retriable = True


class ChecksumMismatchError(ServiceError):
    """The server's checksum of the body differs from the sent one; the upload is repeated."""

    retriable = True


class AuthenticationError(ServiceError):
    """The API key is missing, wrong, or has too few rights (401/403). Streams pause and keep all chunks."""


class RejectedError(ServiceError):
    """The server refuses this request permanently (a 4xx)."""


class NotFoundError(RejectedError):
    """404 or 410: the object of the request does not exist."""


class ConflictError(RejectedError):
    """409: the existing object differs from the one in the request."""


class LinkError(AtomstreamError):
    """The stream ``data_id`` was created, but linking it failed. The stream was ended."""

    def __init__(self, message: str, *, data_id: str) -> None:
        super().__init__(message)
        self.data_id = data_id


class StreamError(AtomstreamError):
    """An error of the stream ``data_id``; ``index`` is the chunk's index, or None."""

    def __init__(self, message: str, *, data_id: str = "", index: int | None = None) -> None:
        super().__init__(message)
        self.data_id = data_id
        self.index = index


class UnknownStreamError(StreamError, KeyError):
    """This streamer has not initialized or resumed that ``data_id``."""

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0])


class StreamFinalizedError(StreamError):
    """Frames were pushed after ``finalize``; they are refused."""


class StreamGoneError(StreamError):
    """The server has no such stream any more. Chunks that were not uploaded are kept and reported."""


class ChunkConflictError(StreamError, ValueError):
    """A chunk index was pushed again with frames that differ from the first ones."""


class BufferFullError(StreamError):
    """No memory left for the chunk. It used no index, and accepted chunks are not affected."""


class DrainTimeoutError(StreamError, TimeoutError):
    """The time limit passed before all chunks were delivered. Nothing was discarded; ``report`` has the counts."""

    def __init__(self, message: str, *, data_id: str = "", report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, data_id=data_id)
        self.report = dict(report or {})


class SpoolLockedError(StreamError):
    """Another process (or another streamer of this process) holds this stream's spool folder."""


class CameraError(AtomstreamError):
    """A camera can't be opened or used; the message names the camera and the reason."""


class CameraLostError(CameraError):
    """An open camera delivers no frames any more, because it was unplugged or switched off. It may come back."""

    retriable = True


class CameraEndedError(CameraError):
    """There are no more frames: a recording that is played as a camera has ended."""


class ShardError(AtomstreamError, ValueError):
    """Bytes that are not a valid shard; the message names what is wrong and where."""


class SpoolError(AtomstreamError):
    """The disk of the spool failed; the stream continues from memory."""


class SpoolFullError(SpoolError):
    """No space for a record: the spool's limit, the free space that it must leave, or the disk itself.

    Data written earlier is not affected. Space is freed when uploads are confirmed.
    """


class RecordCorruptError(SpoolError):
    """A record is damaged. It is moved into quarantine; other records are not affected."""


class ClosedError(AtomstreamError):
    """The streamer is closed, its background work failed, or this process is a fork of its owner."""
