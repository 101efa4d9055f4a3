"""Changes of the server's own key by an administrator: replace it, or revoke it."""

from __future__ import annotations

import time
from pathlib import Path

from atomstream.errors import ConfigError
from atomstream.server.documents import Documents
from atomstream.server.http.api_keys import (
    StoredKey,
    fingerprint,
    read_keys,
    revoke_server_keys,
    rotate_server_key,
)
from atomstream.server.people.records import Actor
from atomstream.server.people.store import People, has_admin


def own_keys(place: Path | Documents) -> list[StoredKey]:
    """The server's own keys that are valid. Blocks; raises ConfigError."""
    return [key for key in read_keys(place) if not 0.0 < key.expires <= time.time()]


def is_own_key(place: Path | Documents, people: People, key_id: str) -> bool:
    """Whether ``key_id`` (or its first digits) is that of a server's own key, and not of a person or instrument.
    Blocks.
    """
    wanted = key_id.strip().lower()
    if not wanted or wanted in people.directory.keys:
        return False
    return any(key.sha256.startswith(wanted) for key in own_keys(place))


def rotate_own_key(
    place: Path | Documents, people: People, actor: Actor, overlap_s: float
) -> tuple[str, str]:
    """Make another own key; its id and the key. The one before stays valid for ``overlap_s``. Blocks."""
    secret = rotate_server_key(place, overlap_s)
    new_id = fingerprint(secret).hex()[:8]
    people.note(actor, f"made key {new_id} in place of the server's own key")
    return new_id, secret


def revoke_own_keys(place: Path | Documents, people: People, actor: Actor) -> None:
    """Revoke the server's own keys. Blocks.

    Raises:
        ConfigError: nobody else could manage the server.
    """
    people.refresh()
    if not has_admin(people):
        raise ConfigError(
            "This is the server's own key, and there is no administrator and no key with the scope admin: nobody "
            "could manage the server any more. Make one first. Nothing was changed."
        )
    revoke_server_keys(place)
    people.note(actor, "revoked the server's own key")
