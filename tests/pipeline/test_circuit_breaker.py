"""The circuit breaker and the upload queue, with a simulated clock."""

from __future__ import annotations

import pytest

from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.pipeline.upload import MemoryPayload, Upload
from atomstream.pipeline.upload_queue import CircuitBreaker, UploadQueue
from atomstream.records import ShardInfo, StreamSpec, Timestamp
from tests.fake_clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_breaker(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(3):
        breaker.fail(breaker.start(), "down")
    return breaker


def upload(stream: str, index: int, recovered: bool = False) -> Upload:
    spec = StreamSpec(stream, 120.0, 0.0, 240)
    info = ShardInfo(
        data_id=stream,
        index=index,
        dims=(1, 2, 2),
        dtype="uint8",
        timestamp=Timestamp(0.0),
        nbytes=1,
        crc32c=0,
        digest=b"",
    )
    return Upload(spec, info, MemoryPayload(()), recovered=recovered)


def test_one_failure_does_not_open(clock: Clock) -> None:
    """A single failure does not stop other attempts."""
    breaker = CircuitBreaker(clock)
    assert not breaker.fail(breaker.start(), "reset")
    assert breaker.allows()


def test_an_outage_allows_one_probe(clock: Clock) -> None:
    """While open, one attempt at a time may start, after a delay."""
    breaker = open_breaker(clock)
    clock.now = 60.0
    assert breaker.allows()
    breaker.start()
    assert not breaker.allows()


def test_a_success_ends_the_outage(clock: Clock) -> None:
    """After a successful probe all attempts may start again."""
    breaker = open_breaker(clock)
    clock.now = 60.0
    breaker.start()
    assert breaker.succeed()
    assert breaker.allows()
    assert not breaker.is_open


def test_attempts_from_before_the_outage_do_not_move_its_probe(clock: Clock) -> None:
    """A late failure of an older attempt neither ends the probe nor counts."""
    breaker = CircuitBreaker(clock)
    old = breaker.start()
    for _ in range(3):
        breaker.fail(breaker.start(), "down")
    clock.now = 60.0
    breaker.start()
    assert not breaker.fail(old, "late")
    assert not breaker.allows()


def test_a_refused_key_opens_at_once(clock: Clock) -> None:
    """trip opens the breaker at once."""
    breaker = CircuitBreaker(clock)
    assert breaker.trip(breaker.start(), "401")
    assert breaker.is_open


def test_streams_alternate_with_the_lowest_index_first(clock: Clock) -> None:
    """Uploads alternate between streams, in the order of the index within one stream."""
    queue = UploadQueue(clock)
    for item in (upload("a", 2), upload("a", 1), upload("b", 9), upload("a", 0)):
        queue.put(item)
    taken = [queue.pop() for _ in range(4)]
    assert [(item.spec.data_id, item.index) for item in taken if item] == [
        ("a", 0),
        ("b", 9),
        ("a", 1),
        ("a", 2),
    ]


def test_a_waiting_upload_does_not_start_early(clock: Clock) -> None:
    """A retry waits while later chunks of the same stream are sent."""
    queue = UploadQueue(clock)
    queue.put_later(upload("a", 0), 5.0)
    queue.put(upload("a", 1))
    first = queue.pop()
    assert first is not None
    assert first.index == 1
    assert queue.pop() is None
    assert queue.next_change_in() == 5.0
    clock.now = 5.0
    late = queue.pop()
    assert late is not None
    assert late.index == 0


def test_a_stuck_stream_does_not_slow_another(clock: Clock) -> None:
    """An open breaker of one stream does not affect other streams."""
    queue = UploadQueue(clock)
    stuck = upload("a", 0)
    queue.put(stuck)
    queue.put(upload("b", 0))
    breaker = queue.queue_of(stuck).breaker
    breaker.trip(breaker.start(), "500")
    taken = queue.pop()
    assert taken is not None
    assert taken.spec.data_id == "b"
    assert queue.stall_reasons() == {"a": "500"}


def in_memory(data_id: str, index: int) -> Upload:
    made = upload(data_id, index)
    made.permit = MemoryLimiter(1 << 30).try_acquire(data_id, 1)
    return made


def test_durable_uploads_in_memory_are_evictable(clock: Clock) -> None:
    """Durable uploads that hold memory and are not being sent may be evicted, the highest index first."""
    queue = UploadQueue(clock)
    for k in range(4):
        queue.put(upload("a", k))  # on disk only
    held = [in_memory("b", k) for k in range(4)]
    for one in held[:3]:
        one.durable = True
    queue.put_later(held[1], 5.0)
    for one in (held[0], held[2], held[3]):
        queue.put(one)
    assert [one.index for one in queue.evictable()] == [2, 1, 0]
    assert queue.pop(exclude=["a"]) is held[0]
    held[2].release()
    assert queue.evictable() == [held[1]]
    queue.put(held[0])
    assert queue.evictable() == [held[1], held[0]]
    assert queue.remove("b", [1]) == [held[1]]
    queue.remove_stream("b")
    assert queue.evictable() == []


def test_the_lowest_upload_can_be_removed(clock: Clock) -> None:
    """drop_oldest removes the lowest index, waiting or ready."""
    queue = UploadQueue(clock)
    queue.put(in_memory("a", 1))
    queue.put_later(in_memory("a", 0), 9.0)
    lowest = queue.remove_lowest("a")
    assert lowest is not None
    assert lowest.index == 0
    assert len(queue) == 1
