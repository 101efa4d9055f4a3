"""Which user of this computer has the other end of a loopback connection (Linux).

Command lines are visible for all users of a computer, and a browser is started with the address of its page. So a link
that logs in must be of no use for another user who reads it there.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_WORD: Final = 4
"""An address is a row of 32-bit words, each in the byte order of the computer."""


def is_other_user(own: Any, peer: Any) -> bool:
    """Whether the end ``peer`` of a connection belongs to another user than this process; False if that is unknown.

    ``own`` and ``peer`` are the addresses (host, port, ...) of its two ends. The administrator may do everything, and
    is not another user.
    """
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return False
    user = user_of(own, peer)
    return user is not None and user not in (0, os.geteuid())


def user_of(own: Any, peer: Any) -> int | None:
    """The id of the user with the end ``peer`` of a connection of this computer; None if it is unknown."""
    if not sys.platform.startswith("linux"):
        return None
    for path in _TABLES:
        with suppress(OSError, ValueError, IndexError, TypeError):
            with Path(path).open(encoding="ascii") as table:
                found = find_user(table, own, peer)
            if found is not None:
                return found
    return None


def find_user(table: Iterable[str], own: Any, peer: Any) -> int | None:
    """The user of the row of ``table`` (of the form of ``/proc/net/tcp``) whose socket is the end ``peer``."""
    local, remote = _texts(peer), _texts(own)
    for row in table:
        fields = row.split()
        if len(fields) > 7 and fields[1] in local and fields[2] in remote:
            return int(fields[7])
    return None


def _texts(end: Any) -> frozenset[str]:
    """An address and port as in the tables: as IPv4, and as IPv4 in IPv6."""
    host, port = ip_address(str(end[0]).partition("%")[0]), int(end[1])
    forms = [host.packed]
    if host.version == 4:
        forms.append(bytes(10) + b"\xff\xff" + host.packed)
    elif host.ipv4_mapped is not None:
        forms.append(host.ipv4_mapped.packed)
    return frozenset(f"{_words(packed)}:{port:04X}" for packed in forms)


def _words(packed: bytes) -> str:
    words = (packed[at : at + _WORD] for at in range(0, len(packed), _WORD))
    return "".join(f"{socket.htonl(int.from_bytes(word, 'big')):08X}" for word in words)
