"""Changes of people and keys: checked, written to ``people.jsonl``, and then valid."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from atomstream.errors import ConfigError
from atomstream.protocol import MAX_NAME_CHARS, SERVER_KEY_PREFIX, normalized_name
from atomstream.server.people.directory import Directory
from atomstream.server.people.log import AnyPeopleLog, PeopleDamagedError, PeopleLog
from atomstream.server.people.passwords import PasswordFile, checked_password, hash_password
from atomstream.server.people.records import (
    Actor,
    ApiKey,
    Change,
    Entry,
    KeyRevoked,
    LinkMade,
    LinkUsed,
    User,
    UserRemoved,
)
from atomstream.server.people.rights import ROLES, Right, checked_role, checked_scope
from atomstream.system.files import LOCAL, FileSystem

if TYPE_CHECKING:
    from atomstream.server.postgres.postgres import Postgres

LINK_S: Final = 900.0
"""How long a login link is valid, in s, unless given."""
MAX_LINKS: Final = 20
"""Most login links of one person or key that were not used and are still valid."""
OVERLAP_S: Final = 24 * 3600.0
"""How long the old key stays valid after a rotation, in s, unless given."""
MAX_PEOPLE: Final = 10_000
"""Most people, and most keys."""
ID_CHARS: Final = 8

Write = Callable[[str, Change], None]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made. ``secret`` is the key itself, which is stored nowhere."""

    key: ApiKey
    secret: str


class People:
    """The people and keys of one data folder, or of the servers of a cluster. All methods block, in any thread.

    Methods that change something raise ConfigError with a sentence if it is not possible, PeopleDamagedError if the
    file is damaged, OSError for an error of the disk, and CatalogueUnavailableError if the database of a cluster
    can't be reached; then nothing was changed. ``clock`` is Unix time in s.
    """

    def __init__(
        self, place: Path | Postgres, clock: Callable[[], float] = time.time, file_system: FileSystem = LOCAL
    ) -> None:
        self.directory = Directory(clock)
        self.on_entry: Callable[[Entry], None] | None = None
        """Called with each entry from now on, also of other processes; in whichever thread reads it."""
        self._clock = clock
        self._lock = threading.Lock()
        self._log: AnyPeopleLog
        if isinstance(place, Path):
            self._log = PeopleLog(place, self._receive, file_system)
            self._passwords = PasswordFile(place, file_system)
        else:
            self._log, self._passwords = _shared(place, self._receive)
        self.refresh()

    @property
    def damage(self) -> str:
        """A sentence if ``people.jsonl`` is damaged; empty otherwise."""
        return self._log.damage

    def _receive(self, entry: Entry) -> None:
        self.directory.receive(entry)
        if self.on_entry is not None:
            self.on_entry(entry)

    def refresh(self) -> bool:
        """Read what other processes have written; True if there was something."""
        with self._lock:
            changed = self._log.refresh()
            if self._log.damage:
                self.directory = Directory(self._clock)
            return changed

    def has_news(self) -> bool:
        """Whether :meth:`refresh` would read something. Takes some microseconds."""
        return self._log.has_news()

    @contextmanager
    def _changing(self, actor: Actor) -> Iterator[Write]:
        with self._lock:
            try:
                with self._log.writing() as append:
                    yield lambda done, change: append(self._entry(actor, done, change=change))
            except PeopleDamagedError:
                self.directory = Directory(self._clock)
                raise

    def _entry(self, actor: Actor, done: str, **more: Any) -> Entry:
        return Entry(self._now(), actor.by, actor.via, done, address=actor.address, **more)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")

    def note(self, actor: Actor, done: str, stream: str = "") -> None:
        """Add a line to the audit log about something that changes neither people nor keys."""
        with self._lock, self._log.writing() as append:
            append(self._entry(actor, done, stream=stream))

    # -- people ----------------------------------------------------------------------------------------------

    def add_user(
        self,
        actor: Actor,
        name: str,
        role: str,
        projects: tuple[str, ...] | None = None,
        *,
        password: str | None = None,
        issuer: str = "",
        subject: str = "",
    ) -> User:
        """Add a person. ``projects`` are ids of projects, None all of them. Without a password they need a link."""
        name = _checked_name(name, "person")
        _check_projects(checked_role(role), projects)
        hashed = None if password is None else hash_password(checked_password(password, name))
        with self._changing(actor) as write:
            self._check_free(name)
            if len(self.directory.users) >= MAX_PEOPLE:
                raise ConfigError(f"There are {MAX_PEOPLE} people already; remove some first.")
            user = User(str(uuid.uuid4()), name, role, self._now(), projects, issuer=issuer, subject=subject)
            if hashed is not None:
                self._passwords.put(user.id, hashed)
            write(f"added {name} ({_about(user)})", user)
        return user

    def set_user(
        self,
        actor: Actor,
        name: str,
        *,
        role: str | UnsetType = UNSET,
        projects: tuple[str, ...] | UnsetType | None = UNSET,
        password: str | UnsetType | None = UNSET,
        new_name: str | UnsetType = UNSET,
        even_last_admin: bool = False,
    ) -> User:
        """Change what is given of a person. A new password, or None for none, ends their sessions.

        The last administrator keeps the role, unless ``even_last_admin`` is given.
        """
        hashed = None
        if isinstance(password, str):
            hashed = hash_password(checked_password(password, name))
        with self._changing(actor) as write:
            old = self._user(name)
            fields: dict[str, Any] = {}
            done = []
            if new_name is not UNSET and new_name != old.name:
                fields["name"] = _checked_name(new_name, "person")
                if normalized_name(new_name) != normalized_name(old.name):
                    self._check_free(fields["name"])
                done.append(f"renamed to {fields['name']}")
            if role is not UNSET and role != old.role:
                fields["role"] = checked_role(role)
                if ROLES[role] is not Right.ADMIN and not even_last_admin:
                    self._check_other_admin(old)
            if projects is not UNSET and projects != old.projects:
                fields["projects"] = projects
            if password is not UNSET:
                fields["epoch"] = old.epoch + 1
                done.append("new password" if hashed else "password removed")
            new = msgspec.structs.replace(old, **fields)
            _check_projects(new.role, new.projects)
            if new == old:
                return old
            if {"role", "projects"} & fields.keys():
                done.append(_about(new))
            if password is not UNSET:
                self._passwords.put(old.id, hashed)
            write(f"changed {old.name}: {', '.join(done)}", new)
        return new

    def remove_user(self, actor: Actor, name: str, *, even_last_admin: bool = False) -> User:
        """Remove a person; their sessions and keys are not valid any more.

        The last administrator stays, unless ``even_last_admin`` is given.
        """
        with self._changing(actor) as write:
            user = self._user(name)
            if not even_last_admin:
                self._check_other_admin(user)
            self._passwords.put(user.id, None)
            write(f"removed {user.name}", UserRemoved(user.id))
        return user

    def _user(self, name: str) -> User:
        user = self.directory.user_named(name)
        if user is None:
            raise ConfigError(f"There is no person named {name[:64]!r}; nothing was changed.")
        return user

    def _check_free(self, name: str) -> None:
        taken = self.directory.user_named(name)
        if taken is not None:
            raise ConfigError(f"There is a person named {taken.name!r} already; nothing was changed.")

    def _check_other_admin(self, user: User) -> None:
        """Somebody must be able to manage the others."""
        if self.directory.admins() == [user]:
            raise ConfigError(
                f"{user.name} is the last administrator; make somebody else one first "
                "(atomstream users set NAME --role admin). Nothing was changed."
            )

    def password_hash(self, user: User) -> str | None:
        """The hash of a person's password; None if they have none, or the file is damaged (ConfigError)."""
        with self._lock:
            return self._passwords.read().get(user.id)

    def with_password(self) -> set[str]:
        """The ids of the people who have a password."""
        with self._lock:
            return set(self._passwords.read())

    # -- keys ------------------------------------------------------------------------------------------------

    def create_key(
        self,
        actor: Actor,
        scope: str,
        *,
        user: str = "",
        instrument: str = "",
        projects: tuple[str, ...] | None = None,
        expires: float = 0.0,
    ) -> NewKey:
        """Make a key for the person named ``user``, or for an instrument. ``expires``: Unix time in s; 0: never."""
        right = checked_scope(scope)
        if bool(user) == bool(instrument):
            raise ConfigError("A key belongs to a person or to an instrument: give one of them.")
        if right is Right.ADMIN and projects is not None:
            raise ConfigError("A key with the scope admin is for all projects; leave the projects out.")
        if expires and expires <= self._clock():
            raise ConfigError("The key would have expired already; give a time in the future.")
        if instrument:
            instrument = _checked_name(instrument, "instrument")
        with self._changing(actor) as write:
            owner = self._user(user) if user else None
            if owner is not None and right > ROLES[owner.role]:
                raise ConfigError(
                    f"{owner.name} has the role {owner.role} and can't have a key with the scope {scope}: a key never "
                    "has more rights than its owner."
                )
            if len(self.directory.keys) >= MAX_PEOPLE:
                raise ConfigError(f"There are {MAX_PEOPLE} keys already; revoke some first.")
            made = self._make_key(
                scope, owner.id if owner else "", instrument, projects=projects, expires=expires
            )
            write(f"made key {made.key.id} for {_about_key(made.key, owner)}", made.key)
        return made

    def _make_key(self, scope: str, user: str, instrument: str, **fields: Any) -> NewKey:
        while True:
            secret = SERVER_KEY_PREFIX + secrets.token_urlsafe(32)
            digest = hashlib.sha256(secret.encode()).hexdigest()
            taken = {*self.directory.keys, *(key.id for key in self.directory.revoked.values())}
            if digest[:ID_CHARS] not in taken:
                key = ApiKey(digest[:ID_CHARS], digest, self._now(), scope, user, instrument, **fields)
                return NewKey(key, secret)

    def revoke_key(self, actor: Actor, key_id: str) -> ApiKey:
        """Revoke a key: requests with it are refused from now on, and its open connections are closed."""
        with self._changing(actor) as write:
            key = self._key(key_id)
            write(f"revoked key {key.id} of {self.directory.owner_of(key)}", KeyRevoked(key.id))
        return key

    def rotate_key(self, actor: Actor, key_id: str, overlap_s: float = OVERLAP_S) -> NewKey:
        """Make a new key with the rights of an old one; the old key stays valid for ``overlap_s`` more seconds. If the
        old key had a time of expiry, the new one is valid for the same period.
        """
        with self._changing(actor) as write:
            old = self._key(key_id)
            now = self._clock()
            if self.directory.is_expired(old):
                raise ConfigError(f"Key {old.id} has expired; make a new one (atomstream keys create).")
            life = old.expires - datetime.fromisoformat(old.made).timestamp() if old.expires else 0.0
            made = self._make_key(
                old.scope,
                old.user,
                old.instrument,
                projects=old.projects,
                expires=now + life if life else 0.0,
            )
            owner = self.directory.owner_of(old)
            write(f"made key {made.key.id} for {owner} in place of {old.id}", made.key)
            end = now + overlap_s
            if overlap_s <= 0:
                write(f"revoked key {old.id} of {owner}", KeyRevoked(old.id))
            elif not old.expires or old.expires > end:
                write(f"key {old.id} expires in {overlap_s:.0f} s", msgspec.structs.replace(old, expires=end))
        return made

    def _key(self, key_id: str) -> ApiKey:
        """The key whose id is ``key_id`` or begins with it."""
        wanted = key_id.strip().lower()
        found = [key for name, key in self.directory.keys.items() if wanted and name.startswith(wanted)]
        if len(found) != 1:
            if any(key.id == wanted for key in self.directory.revoked.values()):
                raise ConfigError(f"Key {wanted} was revoked already.")
            several = "Several keys begin" if found else "There is no key whose id begins"
            raise ConfigError(f"{several} with {key_id[:64]!r}; nothing was changed.")
        return found[0]

    # -- login links -----------------------------------------------------------------------------------------

    def make_link(self, actor: Actor, holder: str, name: str, valid_s: float = LINK_S) -> str:
        """The token of a link that logs in once as ``holder`` (see :class:`Principal`), named ``name`` in the log.

        The log keeps a line for each link permanently, so each person or key can have only a few unused ones.
        """
        token = secrets.token_urlsafe(32)
        link = LinkMade(_token_hash(token), holder, self._clock() + valid_s)
        with self._changing(actor) as write:
            if self.directory.count_links(holder) >= MAX_LINKS:
                raise ConfigError(
                    f"{name} has {MAX_LINKS} login links that were not used yet, and more are not made. A link is "
                    "valid for 15 minutes, unless another time was given."
                )
            write(f"made a login link for {name}", link)
        return token

    def link_for(self, actor: Actor, name: str, valid_s: float = LINK_S) -> str:
        """The token of a link that logs in once as the person named ``name``."""
        with self._lock:
            self._log.refresh()
            user = self._user(name)
        return self.make_link(actor, self.directory.of_user(user).holder, user.name, valid_s)

    def use_link(self, actor: Actor, token: str) -> str | None:
        """The holder of the link with that token, which is used up by this; None if there is no such link."""
        digest = _token_hash(token)
        if self.directory.link_with(digest) is None:
            self.refresh()  # it may find nothing new, because another thread has just read the link
        if self.directory.link_with(digest) is None:
            return None
        with self._changing(actor) as write:
            link = self.directory.link_with(digest)
            if link is None:
                return None
            write("used a login link", LinkUsed(digest))
        return link.holder


def _shared(postgres: Postgres, receive: Callable[[Entry], None]) -> tuple[AnyPeopleLog, PasswordFile]:
    # Imported here: a server with its own data folder needs none of it.
    from atomstream.server.people.shared_log import SharedPeopleLog
    from atomstream.server.postgres.documents import TableDocuments

    return SharedPeopleLog(postgres, receive), PasswordFile(TableDocuments(postgres))


def has_admin(people: People) -> bool:
    """Whether anybody may manage the server without its own key: an administrator, or a key with that right."""
    directory = people.directory
    keys = (directory.of_key(key) for key in tuple(directory.keys.values()))
    return bool(directory.admins()) or any(one is not None and one.right is Right.ADMIN for one in keys)


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _checked_name(name: str, what: str) -> str:
    bare = name.strip()
    if not bare:
        raise ConfigError(f"The name of the {what} is empty.")
    if len(bare) > MAX_NAME_CHARS:
        raise ConfigError(
            f"The name of the {what} has {len(bare)} characters; at most {MAX_NAME_CHARS} are allowed."
        )
    if not bare.isprintable():
        raise ConfigError(
            f"The name of the {what} has characters that can't be printed, such as a line break."
        )
    return bare


def _check_projects(role: str, projects: tuple[str, ...] | None) -> None:
    if projects is not None and ROLES.get(role) is Right.ADMIN:
        raise ConfigError(
            "An administrator sees all projects; choose the role operator or viewer, or all projects."
        )


def _about(user: User) -> str:
    if user.projects is None:
        return f"{user.role}, all projects"
    return f"{user.role}, projects {', '.join(user.projects) or 'none'}"


def _about_key(key: ApiKey, owner: User | None) -> str:
    name = owner.name if owner else f"the instrument {key.instrument}"
    which = "all projects" if key.projects is None else f"projects {', '.join(key.projects) or 'none'}"
    until = (
        f", until {datetime.fromtimestamp(key.expires, UTC).isoformat(timespec='minutes')}"
        if key.expires
        else ""
    )
    return f"{name} ({key.scope}, {which}{until})"
