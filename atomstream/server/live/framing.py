"""How server and worker talk over a pipe: each message its length (uint32 LE), then msgpack."""

from __future__ import annotations

import asyncio
import struct
from typing import BinaryIO, Final

import msgspec

from atomstream.server.live.plain import Plain

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
