"""The analysis' records as plain values that msgpack and JSON take, and the user's words as the analysis' records."""

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
    """A region as the API has it."""
    if isinstance(region, Box):
        names = ("name", "x", "y", "width", "height", "tracked")
        return {"type": "box", **{name: getattr(region, name) for name in names}}
    names = ("name", "x0", "y0", "x1", "y1", "width")
    return {"type": "line", **{name: getattr(region, name) for name in names}}


def to_region(plain: Plain) -> Box | Line:
    """The region that a plain one means; raises ConfigError where none does."""
    fields = {name: value for name, value in plain.items() if name != "type"}
    try:
        return Box(**fields) if plain.get("type") == "box" else Line(**fields)
    except TypeError as error:
        raise ConfigError(f"region {plain.get('name')!r}: {error}") from None


def check_regions(regions: Iterable[Plain]) -> list[Plain]:
    """Regions with defaults filled in; raises ConfigError for ones that can't be meant or share a name or column."""
    made = [to_region(plain) for plain in regions]
    columns = [column_name(f"{REGION}{region.name}") for region in made]
    if len(set(columns)) != len(columns):
        raise ConfigError(
            "regions: each needs a name of its own (upper and lower case, blanks and signs do not count)"
        )
    if any(not region.name.strip() or len(region.name) > 50 for region in made):
        raise ConfigError("regions: a name has 1 to 50 characters")
    return [from_region(region) for region in made]


# How server and worker talk over a pipe: each message its length (uint32 LE), then msgpack.

_LENGTH: Final = struct.Struct("<I")


def pack(message: Plain) -> bytes:
    """A message's bytes."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def read(pipe: BinaryIO) -> Plain | None:
    """The next message; None at the pipe's end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    body = pipe.read(_LENGTH.unpack(head)[0])
    return _decoded(body)


async def receive(pipe: asyncio.StreamReader) -> Plain:
    """The same in a loop; raises asyncio.IncompleteReadError at the pipe's end."""
    head = await pipe.readexactly(_LENGTH.size)
    return _decoded(await pipe.readexactly(_LENGTH.unpack(head)[0]))


def _decoded(body: bytes) -> Plain:
    message: Plain = msgspec.msgpack.decode(body)
    return message
