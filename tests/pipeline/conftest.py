"""What the pipeline's tests share: a courier, and pipelines that end with the test."""

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
    """``make(**settings)``: a pipeline to ``courier``."""
    made: list[Pipeline] = []

    def factory(**changes: object) -> Pipeline:
        made.append(Pipeline(settings(**changes), transport))
        return made[-1]

    yield factory
    for pipeline in made:
        await pipeline.close()
