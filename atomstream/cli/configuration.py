"""The settings of ``atomstream serve`` from four places: flag, environment variable, file, default, in this order.

A setting has one name in all of them: ``max_uploads`` is ``--limit max_uploads=8``, ``ATOMSTREAM_SERVER_MAX_UPLOADS=8``
and ``max_uploads = 8`` under ``[limits]`` in the file. A name that does not exist is an error in each of these places:
a mistyped setting would otherwise have no effect, and no message would show it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from atomstream.config import home_expanded
from atomstream.errors import ConfigError

PREFIX: Final = "ATOMSTREAM_SERVER_"
FILE_VARIABLE: Final = f"{PREFIX}CONFIG"
MAX_FILE_BYTES: Final = 1 << 20

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

DEFAULTS: Final[Mapping[str, Any]] = {
    "data": Path("atomstream-data"),
    "host": "127.0.0.1",
    "port": 8765,
    "api_key_file": None,
    "allowed_hosts": (),
    "public_url": None,
    "catalogue": None,
    "store": None,
    "bus": None,
    "tls": "off",
    "tls_cert": None,
    "tls_key": None,
    "insecure_network": False,
    "alarm_webhooks_file": None,
    "log_format": "text",
    "log_level": "warning",
    "retention": None,
}
"""Every setting but the limits, with its default."""

PLAIN: Final = tuple(name for name in DEFAULTS if name != "retention")
"""The settings of one value; rules of retention can only be in a file."""

_PATHS: Final = frozenset({"data", "api_key_file", "alarm_webhooks_file", "tls_cert", "tls_key"})

_TLS: Final = frozenset({"tls", "tls_cert", "tls_key"})
"""Settings that are one choice: one of them from a flag replaces all of them from the environment, and so on."""

_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


def merged(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    file: Path | None,
    limits: Mapping[str, int | float],
) -> dict[str, Any]:
    """All settings by name. ``flags`` are those given, limits included; ``limits`` are all limits with their defaults.

    ``file`` is the one of a flag; without it ``$ATOMSTREAM_SERVER_CONFIG`` names one. ``oidc`` is the table of that
    name with the folder of the file, or None; only a file can have it.

    Raises:
        ConfigError: a setting does not exist or has a wrong type, or the file can't be read.
    """
    named = environment.get(FILE_VARIABLE, "").strip()
    path = file or (home_expanded(named) if named else None)
    sources = [
        {} if path is None else _from_file(path, limits),
        _from_environment(environment, limits),
        dict(flags),
    ]
    found: dict[str, Any] = {**DEFAULTS, **limits, "oidc": None}
    for source in sources:  # later ones replace earlier ones
        if _TLS & source.keys():
            found.update({name: DEFAULTS[name] for name in _TLS})
        found.update(source)
    for name, allowed in (
        ("log_format", LOG_FORMATS),
        ("log_level", LOG_LEVELS),
        ("tls", ("off", "self-signed")),
    ):
        if found[name] not in allowed:
            raise ConfigError(f"{name}={found[name]!r} is unknown; it is one of {', '.join(allowed)}.")
    return found


def _from_environment(environment: Mapping[str, str], limits: Mapping[str, int | float]) -> dict[str, Any]:
    found = {}
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != FILE_VARIABLE:
            name = variable.removeprefix(PREFIX).lower()
            _check_name(variable, name, [*PLAIN, *limits], lambda one: PREFIX + one.upper())
            found[name] = _from_text(variable, name, text.strip(), limits)
    return found


def _from_text(where: str, name: str, text: str, limits: Mapping[str, int | float]) -> Any:
    default = limits[name] if name in limits else DEFAULTS[name]
    if isinstance(default, bool):
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigError(
                f"{where}={text!r} is neither true nor false (1, true, yes, on; 0, false, no, off)."
            )
        return text.lower() in _TRUE
    if isinstance(default, tuple):
        return tuple(text.replace(",", " ").split())
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            kind = "whole number" if isinstance(default, int) else "number"
            raise ConfigError(f"{where}={text!r} is not a {kind}.") from None
    if not text:
        raise ConfigError(f"{where} is empty: remove it, or give a value.")
    return home_expanded(text) if name in _PATHS else text


def _from_file(path: Path, limits: Mapping[str, int | float]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(f"The configuration file {path} is longer than {MAX_FILE_BYTES} bytes.")
        tables = tomllib.loads(text.decode("utf-8-sig").replace("\r\n", "\n"))
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} can't be read: {error.strerror or error}."
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from None
    folder = path.absolute().parent
    given = tables.pop("limits", {})
    rules = tables.pop("retention", None)
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: limits is not a table; begin it with a line [limits].")
    oidc = tables.pop("oidc", None)
    if "api_key" in tables:
        raise ConfigError(
            f"{path}: api_key is not read from this file. Name a file with the key by api_key_file."
        )
    found: dict[str, Any] = {} if rules is None else {"retention": _retention(rules, path)}
    if oidc is not None:
        found["oidc"] = (oidc, folder)
    for names, values in (([*PLAIN], tables), ([*limits], given)):
        for name, value in values.items():
            _check_name(f"{path}: {name}", name, names, str)
            found[name] = _from_toml(f"{path}: {name}", name, value, limits, folder)
    return found


def _retention(table: Any, path: Path) -> Any:
    from atomstream.server.retention_rules import RetentionSettings

    if not isinstance(table, dict):
        raise ConfigError(f"{path}: retention is not a table; begin it with a line [retention].")
    return RetentionSettings.parse(table, f"{path}: retention")


def _from_toml(where: str, name: str, value: Any, limits: Mapping[str, int | float], folder: Path) -> Any:
    default = limits[name] if name in limits else DEFAULTS[name]
    if isinstance(default, tuple):
        if isinstance(value, list) and all(
            isinstance(one, str) and not _has_control_characters(one) for one in value
        ):
            return tuple(value)
        raise ConfigError(f'{where} is not a list of strings, such as ["mbe-pc.lab.local"].')
    right, kind = _is_of_type(default, value)
    if not right:
        raise ConfigError(f"{where}={value!r} is not {kind}.")
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f"{where} is empty: remove it, or give a value.")
    if isinstance(value, str) and _has_control_characters(value):
        raise ConfigError(f"{where}={value!r} has control characters, such as a line break.")
    if name in _PATHS:
        return folder / home_expanded(value)
    try:
        return float(value) if isinstance(default, float) else value
    except OverflowError:
        raise ConfigError(f"{where} is a number of {len(str(value))} digits, which is too large.") from None


def _has_control_characters(text: str) -> bool:
    return any(ord(one) < 32 or ord(one) == 127 for one in text)


def _is_of_type(default: Any, value: Any) -> tuple[bool, str]:
    """Whether ``value`` can replace ``default``, and the name of what is expected."""
    is_true_or_false = isinstance(value, bool)
    if isinstance(default, bool):
        return is_true_or_false, "true or false"
    if isinstance(default, int):
        return isinstance(value, int) and not is_true_or_false, "a whole number"
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not is_true_or_false, "a number"
    return isinstance(value, str), "a string in quotes"


def _check_name(where: str, name: str, known: Iterable[str], shown: Callable[[str], str]) -> None:
    names = list(known)
    if name in names:
        return
    close = difflib.get_close_matches(name, names, 1)
    hint = f"Did you mean {shown(close[0])}?" if close else "docs/server.md lists all settings."
    raise ConfigError(f"{where} is not a setting of the server. {hint}")
