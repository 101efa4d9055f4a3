"""The gate: admission by bytes, fair over streams, free of deadlock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atomstream.pipeline.memory_limiter import MemoryLimiter, Permit


def _nothing() -> None:
    pass


def test_room_is_bounded_by_bytes() -> None:
    """Permits never exceed the limit, and a release makes room again."""
    gate = MemoryLimiter(100)
    first, second = gate.try_enter("a", 60), gate.try_enter("a", 60)
    assert first is not None
    assert second is None
    first.release()
    assert gate.try_enter("a", 60) is not None


def test_a_release_counts_once() -> None:
    """Releasing twice gives nothing back twice."""
    gate = MemoryLimiter(100)
    permit = gate.try_enter("a", 40)
    assert permit is not None
    permit.release()
    permit.release()
    assert gate.used == 0


def test_shrinking_keeps_the_rest() -> None:
    """After encoding only the shard's bytes stay charged; growing back is not possible."""
    gate = MemoryLimiter(100)
    permit = gate.try_enter("a", 80)
    assert permit is not None
    permit.shrink(30)
    permit.shrink(50)
    assert gate.used == 30


def test_a_chunk_above_the_limit_enters_alone() -> None:
    """A chunk larger than the whole limit enters when nothing else is held, and not before."""
    gate = MemoryLimiter(100)
    small = gate.try_enter("a", 10)
    assert small is not None
    assert gate.try_enter("a", 1000) is None
    small.release()
    assert gate.try_enter("a", 1000) is not None


def test_one_stream_leaves_the_others_their_share() -> None:
    """With two active streams neither may hold more than half."""
    gate = MemoryLimiter(100)
    gate.open("a")
    gate.open("b")
    assert gate.try_enter("a", 40) is not None
    assert gate.try_enter("a", 40) is None
    assert gate.try_enter("b", 50) is not None


def test_a_stream_that_ended_returns_its_share() -> None:
    """When a stream closes, a waiter of another one may enter at once."""
    gate = MemoryLimiter(100)
    gate.open("a")
    gate.open("b")
    gate.try_enter("a", 40)
    waiter = gate.queue("a", 40, _nothing)
    assert waiter.permit is None
    gate.close("b")
    assert waiter.permit is not None


def test_a_paused_camera_blocks_nobody() -> None:
    """A buffer that push_frame fills for ever does not keep another stream's first chunk out."""
    gate = MemoryLimiter(100)
    assert gate.try_enter("paused", 90, filling=True) is not None
    assert gate.try_enter("live", 90) is not None


def test_a_filled_buffer_counts_as_moving() -> None:
    """Once complete the buffer will be released by itself, so others wait for it."""
    gate = MemoryLimiter(100)
    permit = gate.try_enter("a", 90, filling=True)
    assert permit is not None
    permit.filled()
    assert gate.try_enter("b", 90) is None


def test_waiters_go_in_turn() -> None:
    """Waiting streams are admitted one after the other, first come first served within each."""
    gate = MemoryLimiter(10)
    order: list[str] = []
    held = gate.try_enter("x", 10)
    for name in ("a1", "a2", "b1"):
        gate.queue(name[0], 10, lambda name=name: order.append(name))
    assert held is not None
    held.release()
    while len(order) < 3:
        for holding in ("a", "b"):
            for permit in _permits(gate, holding):
                permit.release()
    assert order == ["a1", "b1", "a2"]


def test_nobody_jumps_its_own_line() -> None:
    """A push that comes while another of its stream waits does not overtake it."""
    gate = MemoryLimiter(10)
    gate.try_enter("a", 8)
    gate.queue("a", 8, _nothing)
    assert gate.try_enter("a", 1) is None


def test_leaving_the_line_lets_the_next_one_in() -> None:
    """A cancelled waiter neither keeps a permit nor blocks who stands behind it."""
    gate = MemoryLimiter(10)
    gate.try_enter("a", 5)
    large, small = gate.queue("a", 8, _nothing), gate.queue("a", 5, _nothing)
    gate.leave(large)
    assert small.permit is not None


def test_leaving_after_the_grant_gives_the_permit_back() -> None:
    """A grant that comes at the moment of cancellation is not lost."""
    gate = MemoryLimiter(10)
    waiter = gate.queue("a", 5, _nothing)
    assert waiter.permit is not None
    gate.leave(waiter)
    assert gate.used == 0


@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=60),
)
def test_everybody_gets_in_whatever_the_limit(limit: int, steps: list[tuple[str, int, bool]]) -> None:
    """However small the limit, every waiter enters as permits are released, and the bound holds meanwhile."""
    gate = MemoryLimiter(limit)
    waiters = [gate.queue(name, size, _nothing) for name, size, _ in steps]
    largest = max((size for _, size, _ in steps), default=0)
    done: set[int] = set()
    while len(done) < len(waiters):
        assert gate.used <= limit + largest
        entered = [k for k, waiter in enumerate(waiters) if waiter.permit is not None and k not in done]
        assert entered, "nobody moves"
        for k in entered:
            _of(waiters[k].permit).shrink(steps[k][1] // 2)
            _of(waiters[k].permit).release()
            done.add(k)
    assert gate.used == 0


def _of(permit: Permit | None) -> Permit:
    assert permit is not None
    return permit


def _permits(gate: MemoryLimiter, name: str) -> list[Permit]:
    nbytes = gate._streams[name].nbytes
    return [Permit(gate, name, nbytes, False)] if nbytes else []
