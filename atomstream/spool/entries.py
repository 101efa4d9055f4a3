"""The journal's entries and their bytes: each framed with a mark, a length and a CRC-32C.

A torn tail fails its checksum and is cut off. Where an entry in the middle is damaged, the next mark whose
frame checks is found again, so damage costs only the entries it hit. About 50 bytes a chunk in all: a day of
0.1 s chunks makes 40 MB, so nothing is ever compacted.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import google_crc32c
import msgpack

EntryKind: TypeAlias = Literal[
    "claimed",  # the stream's manifest (``detail``): a second copy of stream.json, which may be damaged
    "accepted",  # a chunk was taken
    "stored",  # the server has it
    "quarantined",  # it can't be delivered as it is; its record is kept aside
    "dropped",  # given up by the policy of ``on_full``, or lost with the memory of a process that died
    "purged",  # removed because a person or the retention asked for it
    "requeued",  # a quarantined chunk is to be tried again
    "finalizing",  # no more pushes; drain, then end (``detail``: the wishes)
    "ended",  # the server confirmed the end
    "reopened",  # finalizing or ended no longer holds: the stream goes on
]
_KINDS: Final[tuple[EntryKind, ...]] = get_args(EntryKind)
"""Their order is the format: new kinds go at the end."""

HEADER: Final = b"\x89ATJRN\x01\n"
_MARK: Final = b"\xa7J"
_FRAME = struct.Struct("<2sII")
_LENGTH = struct.Struct("<I")
_MAX_BODY_BYTES: Final = 1 << 20
_MAX_REASON: Final = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to a stream; ``index`` is the chunk's, -1 for the stream as a whole."""

    kind: EntryKind
    index: int = -1
    digest: bytes = b""
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


class Scan(NamedTuple):
    """What a journal's bytes hold: its entries, where the last one ends, and how many gaps were passed over."""

    entries: list[Entry]
    end: int
    gaps: int


def pack_entry(entry: Entry) -> bytes:
    """The framed bytes of an entry."""
    values: list[Any] = [_KINDS.index(entry.kind), entry.index, entry.digest]
    if entry.reason or entry.detail:
        values += [entry.reason[:_MAX_REASON], dict(entry.detail)]
    body: bytes = msgpack.packb(values, unicode_errors="surrogatepass")
    if len(body) > _MAX_BODY_BYTES:
        raise ValueError(f"A journal entry of {len(body)} bytes is over the limit of {_MAX_BODY_BYTES}.")
    return _FRAME.pack(_MARK, len(body), _frame_crc(body)) + body


def scan(data: bytes) -> Scan:
    """All entries in a journal's bytes, whatever was torn or damaged."""
    entries: list[Entry] = []
    at = end = data.find(_MARK) if not data.startswith(HEADER) else len(HEADER)
    gaps = 0
    while 0 <= at < len(data):
        body = _body_at(data, at)
        if body is None:
            at = data.find(_MARK, at + 1)
            continue
        gaps += at != end
        at = end = at + _FRAME.size + len(body)
        entries.extend(_unpack(body))
    return Scan(entries, max(end, len(HEADER)), gaps)


def _frame_crc(body: bytes) -> int:
    crc: int = google_crc32c.extend(google_crc32c.value(_LENGTH.pack(len(body))), body)
    return crc


def _body_at(data: bytes, at: int) -> bytes | None:
    if at + _FRAME.size > len(data):
        return None
    mark, size, crc = _FRAME.unpack_from(data, at)
    body = data[at + _FRAME.size : at + _FRAME.size + min(size, _MAX_BODY_BYTES)]
    if mark != _MARK or len(body) != size or _frame_crc(body) != crc:
        return None
    return body


def _unpack(body: bytes) -> list[Entry]:
    try:
        code, *rest = msgpack.unpackb(body, unicode_errors="surrogatepass")
        # A kind of a newer format is passed over: an older atomstream may still deliver the records.
        return [Entry(_KINDS[code], *rest)] if 0 <= code < len(_KINDS) else []
    except (ValueError, TypeError, msgpack.UnpackException):
        return []
