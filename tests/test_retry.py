"""The retry policy's numbers and its driver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import ConnectionFailedError, RejectedError, ServerBusyError
from atomstream.retry import ceiling_s, certainly_not_received, delay_s, retrying


@given(attempt=st.integers(0, 10_000), draw=st.floats(0, 1), wish=st.floats(0, 1000))
def test_delays_stay_in_their_range(attempt: int, draw: float, wish: float) -> None:
    """A delay is within (0, min(30, 0.5 * 2^n)), and never under Retry-After."""
    delay = delay_s(attempt, wish, lambda: draw)
    assert wish <= delay <= max(wish, min(30.0, 0.5 * 2.0 ** min(attempt, 100)))


def test_the_ceiling_doubles_up_to_half_a_minute() -> None:
    """0.5, 1, 2 ... s, and 30 s at most."""
    assert [ceiling_s(n) for n in (0, 1, 2, 6, 5000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


async def test_a_transient_failure_is_tried_again() -> None:
    """A request that is answered by "busy" is repeated, not earlier than its Retry-After."""
    slept: list[float] = []
    answers = iter([ServerBusyError("busy", retry_after_s=7.0), "done"])

    async def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert await retrying(call, attempts=3, sleep=sleep) == "done"
    assert slept == [7.0]


async def test_a_refusal_is_not_repeated() -> None:
    """A final error comes through at the first attempt."""
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise RejectedError("no", status=422)

    with pytest.raises(RejectedError):
        await retrying(call, attempts=5)
    assert calls == 1


async def test_a_creation_is_repeated_only_if_never_received() -> None:
    """With ``certainly_not_received`` a reset is final, a refused connection is not."""
    errors = [ConnectionFailedError("refused", never_sent=True), ConnectionFailedError("reset")]

    async def call() -> None:
        raise errors.pop(0)

    async def sleep(seconds: float) -> None:
        pass

    with pytest.raises(ConnectionFailedError, match="reset"):
        await retrying(call, attempts=9, may_repeat=certainly_not_received, sleep=sleep)
    assert errors == []
