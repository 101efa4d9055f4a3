"""Messages between server and worker, and regions as maps."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import BinaryIO, Final

import msgspec

from atomstream.analysis import Box, Line
from atomstream.errors import ConfigError
from atomstream.results import REGION, Plain, column_name


def from_region(region: Box | Line) -> Plain:
    """Map of a region, as the API has it."""
    if isinstance(region, Box):
        names = ("name", "x", "y", "width", "height", "tracked")
        return {"type": "box", **{name: getattr(region, name) for name in names}}
    names = ("name", "x0", "y0", "x1", "y1", "width")
    return {"type": "line", **{name: getattr(region, name) for name in names}}


def to_region(plain: Plain) -> Box | Line:
    """Region of a map. Raises ConfigError if the map is invalid."""
    fields = {name: value for name, value in plain.items() if name != "type"}
    try:
        return Box(**fields) if plain.get("type") == "box" else Line(**fields)
    except TypeError as error:
        raise ConfigError(f"region {plain.get('name')!r}: {error}") from None


def check_regions(regions: Iterable[Plain]) -> list[Plain]:
    """Fill in defaults. Raises ConfigError for invalid regions and for two with the same name or column."""
    made = [to_region(plain) for plain in regions]
    columns = [column_name(f"{REGION}{region.name}") for region in made]
    if len(set(columns)) != len(columns):
        raise ConfigError(
            "regions: each needs a name of its own (upper and lower case, blanks and signs do not count)"
        )
    if any(not region.name.strip() or len(region.name) > 50 for region in made):
        raise ConfigError("regions: a name has 1 to 50 characters")
    return [from_region(region) for region in made]


# -- framing on the pipe: the length of a message (uint32, little-endian), then msgpack --------------------

_LENGTH: Final = struct.Struct("<I")


def pack(message: Plain) -> bytes:
    """Encode a message with its length."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def read(pipe: BinaryIO) -> Plain | None:
    """Read the next message; None at the end of the pipe. Blocks."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    body = pipe.read(_LENGTH.unpack(head)[0])
    return _decoded(body)


async def receive(pipe: asyncio.StreamReader) -> Plain:
    """Read the next message. Raises asyncio.IncompleteReadError at the end of the pipe."""
    head = await pipe.readexactly(_LENGTH.size)
    return _decoded(await pipe.readexactly(_LENGTH.unpack(head)[0]))


def _decoded(body: bytes) -> Plain:
    message: Plain = msgspec.msgpack.decode(body)
    return message
