"""The memory limiter: bounded by bytes, fair between streams, free of deadlocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit


def _nothing() -> None:
    pass


def test_permits_are_bounded_by_bytes() -> None:
    """Permits never exceed the limit; after a release new ones are granted."""
    limiter = MemoryLimiter(100)
    first, second = limiter.try_acquire("a", 60), limiter.try_acquire("a", 60)
    assert first is not None
    assert second is None
    first.release()
    assert limiter.try_acquire("a", 60) is not None


def test_a_release_counts_once() -> None:
    """A second release has no effect."""
    limiter = MemoryLimiter(100)
    permit = limiter.try_acquire("a", 40)
    assert permit is not None
    permit.release()
    permit.release()
    assert limiter.used == 0


def test_shrinking_keeps_the_rest() -> None:
    """After encoding only the bytes of the shard stay reserved. A permit can't grow."""
    limiter = MemoryLimiter(100)
    permit = limiter.try_acquire("a", 80)
    assert permit is not None
    permit.shrink(30)
    permit.shrink(50)
    assert limiter.used == 30


def test_a_chunk_above_the_limit_enters_alone() -> None:
    """A chunk above the whole limit enters only if nothing else is held."""
    limiter = MemoryLimiter(100)
    small = limiter.try_acquire("a", 10)
    assert small is not None
    assert limiter.try_acquire("a", 1000) is None
    small.release()
    assert limiter.try_acquire("a", 1000) is not None


def test_one_stream_takes_only_its_share() -> None:
    """With two active streams each may hold at most half."""
    limiter = MemoryLimiter(100)
    limiter.add_stream("a")
    limiter.add_stream("b")
    assert limiter.try_acquire("a", 40) is not None
    assert limiter.try_acquire("a", 40) is None
    assert limiter.try_acquire("b", 50) is not None


def test_the_share_of_an_ended_stream_is_released() -> None:
    """When a stream ends, a waiter of another stream may enter at once."""
    limiter = MemoryLimiter(100)
    limiter.add_stream("a")
    limiter.add_stream("b")
    limiter.try_acquire("a", 40)
    waiter = limiter.enqueue("a", 40, _nothing)
    assert waiter.permit is None
    limiter.remove_stream("b")
    assert waiter.permit is not None


def test_a_paused_camera_blocks_nobody() -> None:
    """A buffer that push_frame never completes does not block the first chunk of another stream."""
    limiter = MemoryLimiter(100)
    assert limiter.try_acquire("paused", 90, filling=True) is not None
    assert limiter.try_acquire("live", 90) is not None


def test_a_filled_buffer_counts_as_in_progress() -> None:
    """A complete buffer will be released soon, so others wait for it."""
    limiter = MemoryLimiter(100)
    permit = limiter.try_acquire("a", 90, filling=True)
    assert permit is not None
    permit.mark_filled()
    assert limiter.try_acquire("b", 90) is None


def test_waiters_of_all_streams_alternate() -> None:
    """Waiting streams are served in turn; within a stream the first waiter comes first."""
    limiter = MemoryLimiter(10)
    order: list[str] = []
    held = limiter.try_acquire("x", 10)
    for name in ("a1", "a2", "b1"):
        limiter.enqueue(name[0], 10, lambda name=name: order.append(name))
    assert held is not None
    held.release()
    while len(order) < 3:
        for holding in ("a", "b"):
            for permit in _permits(limiter, holding):
                permit.release()
    assert order == ["a1", "b1", "a2"]


def test_pushes_of_a_stream_keep_their_order() -> None:
    """A push does not overtake an earlier waiting push of its stream."""
    limiter = MemoryLimiter(10)
    limiter.try_acquire("a", 8)
    limiter.enqueue("a", 8, _nothing)
    assert limiter.try_acquire("a", 1) is None


def test_a_cancelled_waiter_does_not_block_the_next() -> None:
    """A cancelled waiter neither keeps a permit nor blocks the waiters after it."""
    limiter = MemoryLimiter(10)
    limiter.try_acquire("a", 5)
    large, small = limiter.enqueue("a", 8, _nothing), limiter.enqueue("a", 5, _nothing)
    limiter.cancel(large)
    assert small.permit is not None


def test_a_waiter_cancelled_after_the_grant_releases_its_permit() -> None:
    """A permit that is granted at the moment of the cancellation is not lost."""
    limiter = MemoryLimiter(10)
    waiter = limiter.enqueue("a", 5, _nothing)
    assert waiter.permit is not None
    limiter.cancel(waiter)
    assert limiter.used == 0


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=60),
)
def test_every_waiter_enters_with_any_limit(limit: int, steps: list[tuple[str, int, bool]]) -> None:
    """With any limit every waiter enters as permits are released, and the limit is kept meanwhile."""
    limiter = MemoryLimiter(limit)
    waiters = [limiter.enqueue(name, size, _nothing) for name, size, _ in steps]
    largest = max((size for _, size, _ in steps), default=0)
    done: set[int] = set()
    while len(done) < len(waiters):
        assert limiter.used <= limit + largest
        entered = [k for k, waiter in enumerate(waiters) if waiter.permit is not None and k not in done]
        assert entered, "deadlock"
        for k in entered:
            _of(waiters[k].permit).shrink(steps[k][1] // 2)
            _of(waiters[k].permit).release()
            done.add(k)
    assert limiter.used == 0


def _of(permit: Permit | None) -> Permit:
    assert permit is not None
    return permit


def _permits(limiter: MemoryLimiter, name: str) -> list[Permit]:
    nbytes = limiter._streams[name].nbytes
    return [Permit(limiter, name, nbytes, False)] if nbytes else []
