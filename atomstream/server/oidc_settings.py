"""The settings of the sign-in by an institute's OpenID Connect provider: the table ``[oidc]`` of the configuration."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atomstream.config import home_expanded, is_loopback
from atomstream.errors import ConfigError
from atomstream.protocol import normalized_name

MAX_SECRET_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """A provider, and how its claims are mapped to roles and projects.

    ``issuer`` is the provider's address, exactly as in its own metadata. ``client_id`` and ``client_secret`` are what
    it gave this server; without a secret the server is a public client. ``name`` is shown on the sign-in page.

    The values of the claim ``role_claim`` (a text or a list, such as groups) are looked up in ``roles``; the person
    gets the highest role that is found, else ``default_role``, else (None) no access. In the same way
    ``projects_claim`` and ``projects`` give the names of the projects that they see; with an empty ``projects`` they
    see all.

    A session lasts ``session_hours``; afterwards the provider is asked again.
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    name: str = "your institute"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    role_claim: str = "groups"
    roles: Mapping[str, str] = field(default_factory=dict)
    default_role: str | None = None
    projects_claim: str = "groups"
    projects: Mapping[str, Sequence[str]] = field(default_factory=dict)
    session_hours: float = 24.0

    def __post_init__(self) -> None:
        check_address("oidc: issuer", self.issuer)
        if not self.client_id:
            raise ConfigError("oidc: client_id is empty; the provider gives one to each of its clients.")
        if "openid" not in self.scopes:
            raise ConfigError("oidc: scopes must contain openid.")
        known = ("viewer", "operator", "admin")
        for role in (*self.roles.values(), *([self.default_role] if self.default_role is not None else [])):
            if role not in known:
                raise ConfigError(f"oidc: {role!r} is not a role; it is one of {', '.join(known)}.")
        if not self.roles and self.default_role is None:
            raise ConfigError(
                "oidc: nobody could sign in; give default_role, or roles for values of role_claim."
            )
        if not 0.1 <= self.session_hours <= 24.0 * 90:
            raise ConfigError(f"oidc: session_hours={self.session_hours:g} is not from 0.1 to 2160.")

    @classmethod
    def from_table(cls, table: Any, folder: Path) -> OidcSettings:
        """The settings of a table of the configuration file in ``folder``.

        Raises:
            ConfigError: a name does not exist, a value has another type, or the file of the secret can't be read.
        """
        if not isinstance(table, dict):
            raise ConfigError("oidc is not a table; begin it with a line [oidc].")
        given = dict(table)
        if "client_secret" in given:
            raise ConfigError(
                "oidc: client_secret is not read from this file. Name a file with it by client_secret_file."
            )
        secret_file = given.pop("client_secret_file", None)
        names = [one.name for one in fields(cls) if one.name != "client_secret"]
        for name, value in given.items():
            if name not in names:
                close = difflib.get_close_matches(name, [*names, "client_secret_file"], 1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ConfigError(f"oidc: {name} is not a setting.{hint}")
            given[name] = _checked(name, value)
        for name in ("issuer", "client_id"):
            if name not in given:
                raise ConfigError(f"oidc: {name} is missing.")
        if secret_file is not None:
            given["client_secret"] = _read_secret(folder / home_expanded(str(secret_file)))
        return cls(**given)

    def role_of(self, claims: Mapping[str, Any]) -> str | None:
        """The role of a person with these claims; None if they may not sign in."""
        order = {"viewer": 1, "operator": 2, "admin": 3}
        found = [self.roles[value] for value in values_of(claims, self.role_claim) if value in self.roles]
        return max(found, key=lambda role: order[role], default=self.default_role)

    def projects_of(self, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The names of the projects that a person with these claims sees; None: all."""
        if not self.projects:
            return None
        found: dict[str, str] = {}
        for value in values_of(claims, self.projects_claim):
            found.update((normalized_name(name), name) for name in self.projects.get(value, ()))
        return tuple(found.values())


def values_of(claims: Mapping[str, Any], name: str) -> list[str]:
    """The strings in a claim, which is one string or a list; ``a.b`` is the claim ``b`` inside of ``a``."""
    value: Any = claims.get(name)
    if value is None and "." in name:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    found = value if isinstance(value, list) else [value]
    return [one for one in found if isinstance(one, str)]


def check_installed() -> None:
    """Raises ConfigError if the package that checks ID tokens is not installed."""
    if importlib.util.find_spec("joserfc") is None:
        raise ConfigError(
            "The sign-in by OpenID Connect needs a package that is missing: pip install 'atomstream[oidc]'."
        )


def check_address(what: str, url: str) -> None:
    """Refuse an address of a provider that is not https, unless it is on this computer; raises ConfigError."""
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        valid = secure and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{what} {url[:200]!r} is not an https address.")


def _checked(name: str, value: Any) -> Any:
    if name == "session_hours":
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise ConfigError("oidc: session_hours is not a number.")
    if name == "scopes":
        if _is_texts(value):
            return tuple(value)
        raise ConfigError('oidc: scopes is not a list of strings, such as ["openid", "profile"].')
    if name == "roles":
        if isinstance(value, dict) and _is_texts(list(value.values())):
            return dict(value)
        raise ConfigError('oidc: roles is not a table of strings, such as mbe-admins = "admin".')
    if name == "projects":
        if isinstance(value, dict) and all(_is_texts(one) for one in value.values()):
            return dict(value)
        raise ConfigError('oidc: projects is not a table of lists, such as gan-team = ["GaN on Si"].')
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ConfigError(f"oidc: {name} is not a string in quotes.")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"oidc: the file of the client secret, {path}, can't be read: {error}.") from None
    if not text:
        raise ConfigError(f"oidc: the file of the client secret, {path}, is empty.")
    return text
