"""what both ends must agree on: headers, subprotocols, the path of a chunk, limits, when two names are the same"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_LOST: Final = 100_000
"""More lost indices than that are not listed: a client that lost so many has a story to tell, not a list."""


def normalized_name(name: str) -> str:
    """Two names are the same when their keys are equal: outer blanks and case do not count.

    Case goes by Unicode's full folding, and both ways to write an accent are one (NFC), before and after
    the folding, for folding can undo the normal form.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())


SUBPROTOCOL: Final = "atomstream.msgpack"

CRC_HEADER: Final = "x-amz-checksum-crc32c"

ANNOUNCEMENT: Final = "Atomstream"

LOST_HEADER: Final = "Atomstream-Lost"

MAX_LOST_CHARS: Final = 6000
"""Servers refuse headers beyond 8 kB; what is cut off the server finds out by itself, only later."""
