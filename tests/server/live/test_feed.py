"""The newest messages of a stream in memory: bounded in number and in bytes."""

from __future__ import annotations

import msgspec

from atomstream.server.live.feed import RECENT, RECENT_BYTES, Feed
from atomstream.server.live.messages import BatchMessage
from tests.server.live.test_messages import message


def numbered(seq: int, nbytes: int) -> BatchMessage:
    """A batch with ``nbytes`` bytes of per-frame values."""
    return msgspec.structs.replace(message(), seq=seq, columns={"a": bytes(nbytes)}, lines={}, profile=b"")


def test_small_messages_are_bounded_in_number() -> None:
    """The last RECENT messages are in memory."""
    recent = Feed(0)
    for seq in range(1, RECENT + 11):
        recent.publish(numbered(seq, 10))
    assert recent.recent(10) is None
    assert recent.recent(11) is not None


def test_large_messages_are_bounded_in_bytes() -> None:
    """Of large messages fewer are in memory, the newest one in any case."""
    recent = Feed(0)
    for seq in range(1, 20):
        recent.publish(numbered(seq, RECENT_BYTES // 4))
        kept = [seq for seq in range(1, 20) if recent.recent(seq) is not None]
        assert len(kept) <= 4
    recent.publish(numbered(20, 2 * RECENT_BYTES))
    assert [seq for seq in range(1, 21) if recent.recent(seq) is not None] == [20]
