"""Whose the other end of a loopback connection is: that of the kernel's tables."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from atomstream.system import peer_user
from atomstream.system.peer_user import find_user, is_other_user, user_of

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 2 1 0 20 4 30 10 -1
   2: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 20 4 30 10 -1
   3: 0000000000000000FFFF00000100007F:C002 0000000000000000FFFF00000100007F:1F90 01 0:0 00:0 0  1002        0 4 1
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is that of a little-endian computer")
@pytest.mark.parametrize(("port", "user"), [(0xC001, 1001), (0xC002, 1002), (0xC003, None)])
def test_the_row_of_the_other_end(port: int, user: int | None) -> None:
    """As IPv4, as IPv4 in IPv6, and not in the table."""
    own = ("127.0.0.1", 0x1F90)
    assert find_user(TABLE.splitlines(), own, ("127.0.0.1", port)) == user


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tables are those of Linux")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_real_connection_is_of_this_user(family: socket.AddressFamily) -> None:
    """Both ends are of this process."""
    with socket.socket(family) as listening:
        try:
            listening.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        except OSError:
            pytest.skip("this computer has no IPv6")
        listening.listen()
        with socket.create_connection(listening.getsockname()[:2]) as client:
            accepted, peer = listening.accept()
            with accepted:
                assert user_of(accepted.getsockname(), peer) == os.geteuid()
                assert user_of(client.getsockname(), client.getpeername()) == os.geteuid()
                assert not is_other_user(accepted.getsockname(), peer)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such ids")
def test_who_is_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not this one, not the administrator, and not one that is unknown; an administrator asks nobody."""
    ends = ("127.0.0.1", 1), ("127.0.0.1", 2)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for user, other in ((1000, False), (0, False), (None, False), (1001, True)):
        monkeypatch.setattr(peer_user, "user_of", lambda *_, user=user: user)
        assert is_other_user(*ends) is other
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not is_other_user(*ends)
