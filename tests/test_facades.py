"""The parts of a facade are private: other code uses its verbs only, so that a part may be replaced."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest

from atomstream import AsyncRHEEDStreamer, AsyncTimeseriesStreamer, RHEEDStreamer, TimeseriesStreamer
from atomstream.pipeline.pipeline import Pipeline
from atomstream.server.live.owned_results import OwnedResults
from atomstream.server.live.replicated_results import ReplicatedResults
from atomstream.server.live.stored_results import StoredResults
from atomstream.server.live.stream_results import StreamResults

PUBLIC: dict[type[Any], set[str]] = {
    RHEEDStreamer: set(),
    AsyncRHEEDStreamer: set(),
    TimeseriesStreamer: set(),
    AsyncTimeseriesStreamer: set(),
    Pipeline: {"settings", "failure"},
    StoredResults: {"metadata", "followers"},
    StreamResults: set(),
    OwnedResults: {"outdated"},
    ReplicatedResults: {"replica"},
}
"""The attributes that each one adds: values and signals, and the replica that its manager keeps up to date."""


@pytest.mark.parametrize("facade", PUBLIC, ids=lambda one: one.__name__)
def test_the_parts_of_a_facade_are_private(facade: type[Any]) -> None:
    """All attributes that a facade sets on itself begin with an underscore, but for those listed."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(facade)))
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    assert {name for name in stored if not name.startswith("_")} == PUBLIC[facade]
