"""The circuit breaker and the lanes, with a clock of the test's own."""

from __future__ import annotations

import pytest

from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.pipeline.upload import MemoryPayload, Upload
from atomstream.pipeline.upload_queue import CircuitBreaker, UploadQueue
from atomstream.records import StreamSpec, Timestamp
from tests.fake_clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_breaker(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(3):
        breaker.failed(breaker.started(), "down")
    return breaker


def parcel(stream: str, index: int, recovered: bool = False) -> Upload:
    spec = StreamSpec(stream, 120.0, 0.0, 240)
    return Upload(
        spec, index, (1, 2, 2), "uint8", Timestamp(0.0), 1, 0, MemoryPayload(()), recovered=recovered
    )


def test_one_failure_is_bad_luck(clock: Clock) -> None:
    """A single failure does not stop other attempts."""
    breaker = CircuitBreaker(clock)
    assert not breaker.failed(breaker.started(), "reset")
    assert breaker.allows()


def test_an_outage_lets_one_probe_through(clock: Clock) -> None:
    """While open, one attempt at a time may start, after a delay."""
    breaker = open_breaker(clock)
    clock.now = 60.0
    assert breaker.allows()
    breaker.started()
    assert not breaker.allows()


def test_a_success_ends_the_outage(clock: Clock) -> None:
    """The probe's success lets everything through again."""
    breaker = open_breaker(clock)
    clock.now = 60.0
    breaker.started()
    assert breaker.succeeded()
    assert breaker.allows()
    assert not breaker.is_open


def test_attempts_from_before_the_outage_do_not_move_its_probe(clock: Clock) -> None:
    """A late failure of an older attempt neither frees the probe's place nor counts."""
    breaker = CircuitBreaker(clock)
    old = breaker.started()
    for _ in range(3):
        breaker.failed(breaker.started(), "down")
    clock.now = 60.0
    breaker.started()
    assert not breaker.failed(old, "late")
    assert not breaker.allows()


def test_a_refused_key_needs_no_second_opinion(clock: Clock) -> None:
    """trip opens at once."""
    breaker = CircuitBreaker(clock)
    assert breaker.trip(breaker.started(), "401")
    assert breaker.is_open


def test_streams_take_turns_lowest_index_first(clock: Clock) -> None:
    """Parcels go round-robin over streams, by index within one."""
    lanes = UploadQueue(clock)
    for item in (parcel("a", 2), parcel("a", 1), parcel("b", 9), parcel("a", 0)):
        lanes.put(item)
    taken = [lanes.take() for _ in range(4)]
    assert [(item.spec.data_id, item.index) for item in taken if item] == [
        ("a", 0),
        ("b", 9),
        ("a", 1),
        ("a", 2),
    ]


def test_a_waiting_parcel_is_not_taken_before_its_time(clock: Clock) -> None:
    """A retry waits in its lane while later chunks of the same stream go."""
    lanes = UploadQueue(clock)
    lanes.put_later(parcel("a", 0), 5.0)
    lanes.put(parcel("a", 1))
    first = lanes.take()
    assert first is not None
    assert first.index == 1
    assert lanes.take() is None
    assert lanes.next_change_in() == 5.0
    clock.now = 5.0
    late = lanes.take()
    assert late is not None
    assert late.index == 0


def test_a_stuck_stream_does_not_slow_another(clock: Clock) -> None:
    """An open breaker of one lane leaves the other lanes alone."""
    lanes = UploadQueue(clock)
    stuck = parcel("a", 0)
    lanes.put(stuck)
    lanes.put(parcel("b", 0))
    breaker = lanes.lane(stuck).breaker
    breaker.trip(breaker.started(), "500")
    taken = lanes.take()
    assert taken is not None
    assert taken.spec.data_id == "b"
    assert lanes.reasons() == {"a": "500"}


def in_memory(data_id: str, index: int) -> Upload:
    made = parcel(data_id, index)
    made.permit = MemoryLimiter(1 << 30).try_enter(data_id, 1)
    return made


def test_only_what_is_in_memory_and_waits_can_leave_it(clock: Clock) -> None:
    """Durable parcels that hold memory and are not on their way may be evicted, the last to go first."""
    lanes = UploadQueue(clock)
    for k in range(4):
        lanes.put(parcel("a", k))  # on disk only
    held = [in_memory("b", k) for k in range(4)]
    for one in held[:3]:
        one.durable = True
    lanes.put_later(held[1], 5.0)
    for one in (held[0], held[2], held[3]):
        lanes.put(one)
    assert [one.index for one in lanes.evictable()] == [2, 1, 0]
    assert lanes.take(but_not=["a"]) is held[0]
    held[2].release()
    assert lanes.evictable() == [held[1]]
    lanes.put(held[0])
    assert lanes.evictable() == [held[1], held[0]]
    assert lanes.remove("b", [1]) == [held[1]]
    lanes.take_all("b")
    assert lanes.evictable() == []


def test_the_lowest_parcel_can_be_taken_back(clock: Clock) -> None:
    """drop_oldest takes the lowest one, waiting or ready."""
    lanes = UploadQueue(clock)
    lanes.put(in_memory("a", 1))
    lanes.put_later(in_memory("a", 0), 9.0)
    lowest = lanes.take_lowest("a")
    assert lowest is not None
    assert lowest.index == 0
    assert len(lanes) == 1
