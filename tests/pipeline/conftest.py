"""Fixtures of the pipeline tests: a fake transport, and pipelines that are closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from atomstream.pipeline.pipeline import Pipeline
from tests.pipeline.transports import FakeTransport, settings


@pytest.fixture
async def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
async def make(transport: FakeTransport) -> AsyncIterator[Callable[..., Pipeline]]:
    """``make(**settings)`` returns a pipeline that delivers to ``transport``."""
    made: list[Pipeline] = []

    def factory(**changes: object) -> Pipeline:
        made.append(Pipeline(settings(**changes), transport))
        return made[-1]

    yield factory
    for pipeline in made:
        await pipeline.close()
