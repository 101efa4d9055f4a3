"""Fixtures of the server's tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def cheap_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 with the least cost."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("atomstream.server.people.passwords._hasher", lambda: hasher)
