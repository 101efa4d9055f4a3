"""The gate: admission by bytes, fair over streams, free of deadlock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit


def _nothing() -> None:
    pass


def test_room_is_bounded_by_bytes() -> None:
    """Permits never exceed the limit, and a release makes room again."""
    limiter = MemoryLimiter(100)
    first, second = limiter.try_acquire("a", 60), limiter.try_acquire("a", 60)
    assert first is not None
    assert second is None
    first.release()
    assert limiter.try_acquire("a", 60) is not None


def test_a_release_counts_once() -> None:
    """Releasing twice gives nothing back twice."""
    limiter = MemoryLimiter(100)
    permit = limiter.try_acquire("a", 40)
    assert permit is not None
    permit.release()
    permit.release()
    assert limiter.used == 0


def test_shrinking_keeps_the_rest() -> None:
    """After encoding only the shard's bytes stay charged; growing back is not possible."""
    limiter = MemoryLimiter(100)
    permit = limiter.try_acquire("a", 80)
    assert permit is not None
    permit.shrink(30)
    permit.shrink(50)
    assert limiter.used == 30


def test_a_chunk_above_the_limit_enters_alone() -> None:
    """A chunk larger than the whole limit enters when nothing else is held, and not before."""
    limiter = MemoryLimiter(100)
    small = limiter.try_acquire("a", 10)
    assert small is not None
    assert limiter.try_acquire("a", 1000) is None
    small.release()
    assert limiter.try_acquire("a", 1000) is not None


def test_one_stream_leaves_the_others_their_share() -> None:
    """With two active streams neither may hold more than half."""
    limiter = MemoryLimiter(100)
    limiter.add_stream("a")
    limiter.add_stream("b")
    assert limiter.try_acquire("a", 40) is not None
    assert limiter.try_acquire("a", 40) is None
    assert limiter.try_acquire("b", 50) is not None


def test_a_stream_that_ended_returns_its_share() -> None:
    """When a stream closes, a waiter of another one may enter at once."""
    limiter = MemoryLimiter(100)
    limiter.add_stream("a")
    limiter.add_stream("b")
    limiter.try_acquire("a", 40)
    waiter = limiter.enqueue("a", 40, _nothing)
    assert waiter.permit is None
    limiter.remove_stream("b")
    assert waiter.permit is not None


def test_a_paused_camera_blocks_nobody() -> None:
    """A buffer that push_frame fills for ever does not keep another stream's first chunk out."""
    limiter = MemoryLimiter(100)
    assert limiter.try_acquire("paused", 90, filling=True) is not None
    assert limiter.try_acquire("live", 90) is not None


def test_a_filled_buffer_counts_as_moving() -> None:
    """Once complete the buffer will be released by itself, so others wait for it."""
    limiter = MemoryLimiter(100)
    permit = limiter.try_acquire("a", 90, filling=True)
    assert permit is not None
    permit.mark_filled()
    assert limiter.try_acquire("b", 90) is None


def test_waiters_go_in_turn() -> None:
    """Waiting streams are admitted one after the other, first come first served within each."""
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


def test_nobody_jumps_its_own_line() -> None:
    """A push that comes while another of its stream waits does not overtake it."""
    limiter = MemoryLimiter(10)
    limiter.try_acquire("a", 8)
    limiter.enqueue("a", 8, _nothing)
    assert limiter.try_acquire("a", 1) is None


def test_leaving_the_line_lets_the_next_one_in() -> None:
    """A cancelled waiter neither keeps a permit nor blocks who stands behind it."""
    limiter = MemoryLimiter(10)
    limiter.try_acquire("a", 5)
    large, small = limiter.enqueue("a", 8, _nothing), limiter.enqueue("a", 5, _nothing)
    limiter.cancel(large)
    assert small.permit is not None


def test_leaving_after_the_grant_gives_the_permit_back() -> None:
    """A grant that comes at the moment of cancellation is not lost."""
    limiter = MemoryLimiter(10)
    waiter = limiter.enqueue("a", 5, _nothing)
    assert waiter.permit is not None
    limiter.cancel(waiter)
    assert limiter.used == 0


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=60),
)
def test_everybody_gets_in_whatever_the_limit(limit: int, steps: list[tuple[str, int, bool]]) -> None:
    """However small the limit, every waiter enters as permits are released, and the bound holds meanwhile."""
    limiter = MemoryLimiter(limit)
    waiters = [limiter.enqueue(name, size, _nothing) for name, size, _ in steps]
    largest = max((size for _, size, _ in steps), default=0)
    done: set[int] = set()
    while len(done) < len(waiters):
        assert limiter.used <= limit + largest
        entered = [k for k, waiter in enumerate(waiters) if waiter.permit is not None and k not in done]
        assert entered, "nobody moves"
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
