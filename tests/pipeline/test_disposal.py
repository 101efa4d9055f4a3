"""Memory that goes back piece by piece, in a thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from atomstream.pipeline.disposal import Box, dispose

freed_in: list[str] = []


class Piece:
    def __del__(self) -> None:
        freed_in.append(threading.current_thread().name)


def test_pieces_are_freed_in_the_thread() -> None:
    """The thread that asked frees nothing."""
    freed_in.clear()
    with ThreadPoolExecutor(1, thread_name_prefix="frees") as pool:
        dispose(Box([tuple(Piece() for _ in range(5))]), pool)
    assert freed_in == ["frees_0"] * 5


def test_who_still_holds_a_piece_keeps_it() -> None:
    """A sequence that somebody else holds too stays whole, and is freed with the last holder."""
    freed_in.clear()
    pieces = tuple(Piece() for _ in range(3))
    with ThreadPoolExecutor(1, thread_name_prefix="frees") as pool:
        dispose(Box([pieces]), pool)
        pool.submit(lambda: None).result()
        assert freed_in == []
        box = Box([pieces])
        del pieces
        dispose(box, pool)
    assert freed_in == ["frees_0"] * 3


def test_after_the_threads_have_ended_it_goes_at_once() -> None:
    """A streamer that is closed leaves nothing in memory."""
    freed_in.clear()
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    dispose(Box([(Piece(), Piece())]), pool)
    assert len(freed_in) == 2
