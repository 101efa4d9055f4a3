"""Decoding of what a server sent, within limits of memory.

A body of a few MB may describe millions of small objects, which would take gigabytes as Python objects: 15 MB of
empty MessagePack maps take 1 GB. So large bodies are counted before they are decoded.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

import msgpack

from atomstream.records import Json

SMALL_BYTES: Final = 64 << 10
"""Bodies up to this size are decoded without counting."""

MAX_OBJECTS: Final = 200_000
"""Most objects of a MessagePack message, and most containers of a JSON body. The largest message of a real feed has a
few thousand: its columns are one binary string each."""

MAX_JSON_ITEMS: Final = 1_000_000
"""Most items of a JSON body; 16 MB of a real reply have 600 000."""


def unpack(body: bytes) -> Any:
    """The object in a MessagePack message.

    Raises:
        ValueError: the message is invalid, nested too deeply, or has more than ``MAX_OBJECTS`` objects.
    """
    if len(body) > SMALL_BYTES:
        _check_object_count(body)
    try:
        return msgpack.unpackb(body, max_array_len=MAX_OBJECTS, max_map_len=MAX_OBJECTS)
    except (TypeError, msgpack.UnpackException) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def parse_json(body: bytes) -> Json:
    """The value in a JSON body.

    Raises:
        ValueError: the body is not JSON, is nested too deeply, or has too many items.
    """
    if len(body) > SMALL_BYTES:
        containers, items = body.count(b"{") + body.count(b"["), body.count(b",")
        if containers > MAX_OBJECTS or items > MAX_JSON_ITEMS:
            raise ValueError("it has too many items")
    try:
        value: Json = json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    return value


class CompressionError(ValueError):
    """A compressed body that can't be decompressed."""


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The first ``limit`` bytes of a body with that ``Content-Encoding``; memory is bounded by ``limit``.

    The client does not ask for compression, but a proxy may apply it. An empty body has no compression, whatever the
    header states.

    Raises:
        CompressionError: the body is damaged, or the encoding is another one than gzip and deflate.
    """
    if not body:
        return body
    match encoding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip" | "deflate":
            try:
                return zlib.decompressobj(wbits=_ZLIB_OR_GZIP).decompress(body, limit)
            except zlib.error:
                raise CompressionError("its compression is damaged") from None
        case other:
            raise CompressionError(f"its compression {other[:20]!r} is not supported")


_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
"""Window size for zlib to detect the header of both formats."""


def _check_object_count(body: bytes) -> None:
    """Walk over the objects' headers, and stop at the first one too many. Invalid bytes are left to the decoder."""
    at, count = 0, 0
    while at < len(body):
        code = body[at]
        if code in _LENGTH_BYTES:
            width, extra = _LENGTH_BYTES[code]
            at += 1 + width + extra + int.from_bytes(body[at + 1 : at + 1 + width], "big")
        elif code in _FIXED_BYTES:
            at += 1 + _FIXED_BYTES[code]
        elif 0xA0 <= code <= 0xBF:
            at += 1 + (code & 0x1F)
        else:  # small integers, nil, booleans, and small maps and arrays, whose items follow
            at += 1
        count += 1
        if count > MAX_OBJECTS:
            raise ValueError(f"it has more than {MAX_OBJECTS} objects")


_LENGTH_BYTES: Final = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0),  # bin
    0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),  # ext
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),  # str
}  # fmt: skip
"""Objects with a variable payload: size of the length field, and additional bytes, both in bytes."""

_FIXED_BYTES: Final = {
    0xCA: 4, 0xCB: 8,  # float
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,  # int
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,  # fixext
    0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,  # the count of an array or map, whose items follow
}  # fmt: skip
"""Objects of a fixed size: bytes after the first."""
