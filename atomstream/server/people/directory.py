"""The people and keys that are valid now: the result of all records of ``people.jsonl``, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from atomstream.protocol import normalized_name
from atomstream.server.people.records import (
    ApiKey,
    Change,
    Entry,
    KeyRevoked,
    LinkMade,
    LinkUsed,
    User,
    UserRemoved,
)
from atomstream.server.people.rights import ROLES, SCOPES, Principal, Right, both

KEPT_ENTRIES: Final = 2000
"""Newest entries of the audit log that are kept in memory; the file has all of them."""


class Directory:
    """Applies records, and answers who a key or a session belongs to. ``clock`` is Unix time in s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.users: dict[str, User] = {}
        self.keys: dict[str, ApiKey] = {}
        """Keys that were not revoked, by id; also expired ones."""
        self.revoked: dict[bytes, ApiKey] = {}
        """Revoked keys by their hash, so that the answer to them gives the reason."""
        self.links: dict[str, LinkMade] = {}
        self.entries: deque[Entry] = deque(maxlen=KEPT_ENTRIES)
        self._by_hash: dict[bytes, ApiKey] = {}
        self._by_name: dict[str, User] = {}

    def receive(self, entry: Entry) -> None:
        """Apply a record."""
        self.entries.append(entry)
        if entry.change is not None:
            self._apply(entry.change)

    def _apply(self, change: Change) -> None:
        match change:
            case User():
                self._remove_user(change.id)
                self.users[change.id] = change
                self._by_name[normalized_name(change.name)] = change
            case UserRemoved():
                self._remove_user(change.id)
                for key in [key for key in self.keys.values() if key.user == change.id]:
                    self._revoke(key)
            case ApiKey():
                self.keys[change.id] = change
                self._by_hash[bytes.fromhex(change.sha256)] = change
            case KeyRevoked():
                if change.id in self.keys:
                    self._revoke(self.keys[change.id])
            case LinkMade():
                while (oldest := next(iter(self.links), None)) and self.links[
                    oldest
                ].expires <= self._clock():
                    del self.links[oldest]
                self.links[change.sha256] = change
            case LinkUsed():
                self.links.pop(change.sha256, None)

    def _remove_user(self, user_id: str) -> None:
        old = self.users.pop(user_id, None)
        if old is not None:
            self._by_name.pop(normalized_name(old.name), None)

    def _revoke(self, key: ApiKey) -> None:
        digest = bytes.fromhex(key.sha256)
        del self.keys[key.id], self._by_hash[digest]
        self.revoked[digest] = key

    def user_named(self, name: str) -> User | None:
        """The person of that name; case and outer blanks make no difference."""
        return self._by_name.get(normalized_name(name))

    def user_of(self, issuer: str, subject: str) -> User | None:
        """The person that an OpenID Connect provider calls ``subject``."""
        found = (
            user for user in tuple(self.users.values()) if (user.issuer, user.subject) == (issuer, subject)
        )
        return next(found, None)

    def admins(self) -> list[User]:
        """All administrators."""
        return [user for user in tuple(self.users.values()) if ROLES.get(user.role) is Right.ADMIN]

    def key_with(self, digest: bytes) -> ApiKey | None:
        """The key with that SHA-256, also an expired one; None if there is none, or it was revoked."""
        # A look-up by hash: its duration depends on hashes, which reveal nothing about any key.
        return self._by_hash.get(digest)

    def is_expired(self, key: ApiKey) -> bool:
        """Whether the time of a key is over."""
        return 0.0 < key.expires <= self._clock()

    def owner_of(self, key: ApiKey) -> str:
        """The name of a key's owner."""
        user = self.users.get(key.user)
        return key.instrument if user is None else user.name

    def of_key(self, key: ApiKey) -> Principal | None:
        """Who uses the key: at most its scope, and at most what its owner may do. None if it is not valid."""
        if self.is_expired(key):
            return None
        right, projects = SCOPES.get(key.scope, Right.NONE), _set(key.projects)
        if key.user:
            user = self.users.get(key.user)
            if user is None:
                return None
            right = min(right, ROLES.get(user.role, Right.NONE))
            projects = both(projects, _set(user.projects))
        return Principal(self.owner_of(key), right, projects, f"key:{key.sha256}", key.id)

    def of_user(self, user: User) -> Principal:
        """The person in a browser session."""
        right = ROLES.get(user.role, Right.NONE)
        return Principal(user.name, right, _set(user.projects), f"user:{user.id}:{user.epoch}")

    def of_holder(self, holder: str) -> Principal | None:
        """Who a session belongs to; None if it is not valid any more."""
        kind, _, rest = holder.partition(":")
        if kind == "key":
            key = self._by_hash.get(_digest(rest))
            return None if key is None else self.of_key(key)
        user_id, _, epoch = rest.partition(":")
        user = self.users.get(user_id)
        return self.of_user(user) if user is not None and str(user.epoch) == epoch else None

    def count_links(self, holder: str) -> int:
        """The number of links for ``holder`` that were not used and are still valid."""
        now = self._clock()
        return sum(link.holder == holder and now < link.expires for link in tuple(self.links.values()))

    def link_with(self, sha256: str) -> LinkMade | None:
        """The link with that hash, if it was not used and its time is not over."""
        link = self.links.get(sha256)
        return link if link is not None and self._clock() < link.expires else None


def _set(projects: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if projects is None else frozenset(projects)


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
