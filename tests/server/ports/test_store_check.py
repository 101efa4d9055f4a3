"""A store that can't be relied on is refused at the start with a sentence, and nothing stays in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from atomstream.errors import ConfigError
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.store_url import check_store


class _Replaces(LocalStore):
    """As older S3 servers: conditions are ignored."""

    def put(self, key: str, data: Any, **conditions: Any) -> str:
        conditions.pop("create_only", None)
        conditions.pop("if_match", None)
        return super().put(key, data, **conditions)


class _LateList(LocalStore):
    """A store whose list does not have a new object at once."""

    def keys(self, folder: str) -> Any:
        return iter(())


class _Damages(LocalStore):
    """A store that does not compare checksums."""

    def accepts_damaged(self, key: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (_Replaces, r"created only once \(If-None-Match\).*; it ignores the condition .*If-Match"),
        (_LateList, "does not list an object that was just stored"),
        (_Damages, "accepts an object whose checksum is wrong"),
    ],
)
def test_a_store_without_an_ability_is_refused(kind: type[LocalStore], sentence: str, tmp_path: Path) -> None:
    """The sentence names each missing ability."""
    store = kind(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        check_store(store)
    assert list(LocalStore(tmp_path).keys("")) == []
