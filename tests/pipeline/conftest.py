"""What the pipeline's tests share: a courier, and pipelines that end with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from atomstream.pipeline.pipeline import Pipeline
from tests.pipeline.transports import Courier, settings


@pytest.fixture
async def courier() -> Courier:
    return Courier()


@pytest.fixture
async def make(courier: Courier) -> AsyncIterator[Callable[..., Pipeline]]:
    """``make(**settings)``: a pipeline to ``courier``."""
    made: list[Pipeline] = []

    def factory(**changes: object) -> Pipeline:
        made.append(Pipeline(settings(**changes), courier))
        return made[-1]

    yield factory
    for pipeline in made:
        await pipeline.close()
