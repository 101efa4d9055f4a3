"""A state machine test: the stream's folder is compared with a dict; each step may fail, each process may die."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atomstream.errors import ChunkConflictError, SpoolError
from atomstream.spool import StreamSpool
from tests.paths import MEMORY
from tests.spool.spool_helpers import (
    ENDPOINT,
    FaultyDisk,
    delivered,
    new_spool,
    payload,
    reopened,
    shard,
    spec,
)

INDICES = st.integers(0, 4)
FAULT = st.none() | st.tuples(
    st.integers(0, 12), st.integers(0, 3), st.sampled_from([errno.EIO, errno.ENOSPC]), st.booleans()
)


class SpoolMachine(RuleBasedStateMachine):
    """``now`` is the state of the open stream; ``later`` has the allowed states for a new process.

    ``written`` are the chunks whose record was written without an error. Only another one may be pending in the journal
    and have no record: its frames were only in the memory of the process.
    """

    stream: StreamSpool

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="spool-machine-", dir=MEMORY))
        self.disk = FaultyDisk()
        self.stream = new_spool(self.root, self.disk).create_stream(ENDPOINT, spec())
        self.now: dict[int, str] = {}
        self.later: dict[int, set[str]] = {}
        self.content: dict[int, int] = {}
        self.written: set[int] = set()

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.disk.recover()
            self.stream.close()
            shutil.rmtree(self.root)

    def attempt(self, index: int, state: str, fault: object, act: Callable[[], object]) -> bool:
        """Do one step, with or without a fault, and record its possible results."""
        before = self.now.get(index, "none")
        if isinstance(fault, tuple):
            first, more, self.disk.code, self.disk.late = fault
            self.disk.first = len(self.disk.calls) + first
            self.disk.last = self.disk.first + more
        try:
            act()
        except SpoolError:
            assert fault, "refused on a healthy disk"
            self.later.setdefault(index, {before}).add(state)
            return False
        else:
            self.now[index] = state
            self.later[index] = {state}
            if state == "pending":
                self.written.add(index)
            return True
        finally:
            self.disk.recover()

    @rule(index=INDICES, variant=st.integers(0, 1), fault=FAULT)
    def put(self, index: int, variant: int, fault: object) -> None:
        state = self.now.get(index, "none")
        content = self.content.setdefault(index, variant)
        if state == "pending" and content != variant:
            try:
                self.stream.put(shard(index, variant))
            except ChunkConflictError:
                return
            raise AssertionError("another content was taken")
        if state in ("none", "pending"):
            self.attempt(index, "pending", fault, lambda: self.stream.put(shard(index, content)))
        else:
            assert self.stream.put(shard(index, content)) is None

    @rule(index=INDICES, fault=FAULT)
    def forget(self, index: int, fault: object) -> None:
        if self.now.get(index, "none") in ("none", "pending"):
            self.attempt(index, "stored", fault, lambda: self.stream.mark_stored(index))

    @rule(index=INDICES, fault=FAULT)
    def drop(self, index: int, fault: object) -> None:
        if self.now.get(index, "none") in ("none", "pending"):
            self.attempt(index, "dropped", fault, lambda: self.stream.discard(index, "dropped", "no room"))

    @rule(index=INDICES, fault=FAULT)
    def quarantine(self, index: int, fault: object) -> None:
        if self.now.get(index) == "pending":
            self.attempt(index, "quarantined", fault, lambda: self.stream.quarantine(index, "422"))

    @rule(index=INDICES, fault=FAULT)
    def requeue(self, index: int, fault: object) -> None:
        if index in self.stream.quarantined():
            self.attempt(index, "pending", fault, lambda: self.stream.requeue(index))

    @precondition(lambda self: hasattr(self, "root"))
    @rule(fault=FAULT)
    def die_and_go_on(self, fault: object) -> None:
        """A new process opens the stream; the first attempt may fail."""
        self.stream.close()
        if isinstance(fault, tuple):
            first, more, code, late = fault
            with suppress(SpoolError):
                reopened(self.root, FaultyDisk(first, first + more, code, late)).close()
        self.disk = FaultyDisk()
        self.stream = reopened(self.root, self.disk)
        for index, possible in self.later.items():
            state = str(self.stream.journal_state.states.get(index, "none"))
            assert state in possible, (index, state, possible)
            self.later[index] = {state}
            if index in self.stream.missing:
                assert index not in self.written
                state = "none"
            self.now[index] = state

    @invariant()
    def says_what_the_model_says(self) -> None:
        if not hasattr(self, "root"):
            return
        pending = [index for index, state in sorted(self.now.items()) if state == "pending"]
        assert self.stream.pending() == pending
        for index in pending:
            assert delivered(self.stream, index) == payload(shard(index, self.content[index]))


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
