"""Ids in request bodies: UUIDs, told apart from any other text before they are looked up."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

UuidText: TypeAlias = Annotated[
    str, msgspec.Meta(pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", max_length=36)
]
"""A UUID as text. Kept as text, and compared in lower case, for that is what the tables hold."""
