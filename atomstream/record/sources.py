"""Names of sources for people, such as ``screen`` or ``watch:DIR``, and the camera that each one means."""

from __future__ import annotations

from typing import Final, NamedTuple

from atomstream.cameras import list_cameras
from atomstream.cameras.names import ADAPTERS
from atomstream.errors import ConfigError

EXAMPLES: Final = "simulator, camera:basler:0, file:growth.tif, screen, watch:D:/frames"


class FoundSource(NamedTuple):
    """A source that can be chosen: its name, and what it is."""

    name: str
    description: str


def camera_name(source: str) -> str:
    """The name of the camera (:func:`atomstream.cameras.open_camera`) that ``source`` means.

    ``simulator``, ``camera:ID``, ``file:PATH``, ``screen`` (the whole first monitor), ``screen:X,Y,WIDTH,HEIGHT``,
    ``watch:FOLDER``. Names of cameras are accepted too.

    Raises:
        ConfigError: it is no source, or there is no screen.
    """
    kind, _, which = source.strip().partition(":")
    if kind == "simulator":
        return f"sim:{which}" if which else "sim"
    if kind == "camera":
        kind, _, _ = which.partition(":")
        if kind in ADAPTERS:
            return which
    elif kind == "watch" and which:
        return f"folder:{which}"
    elif kind == "screen" and not which:
        return _whole_screen()
    elif kind in ADAPTERS:
        return source.strip()
    raise ConfigError(
        f"{source!r} is no source; sources are {EXAMPLES} (`atomstream camera list` shows the cameras)."
    )


def find_sources() -> tuple[list[FoundSource], dict[str, str]]:
    """Search this computer for sources; also why some kinds were not searched. It takes up to seconds."""
    cameras, not_searched = list_cameras()
    found = [FoundSource("simulator", "simulated growth, without a camera")]
    found += [FoundSource(f"camera:{one.name}", one.description) for one in cameras if one.name != "sim"]
    return found, not_searched


def _whole_screen() -> str:
    found, not_searched = list_cameras(["screen"])
    if not found:
        raise ConfigError(not_searched.get("screen") or "There is no screen to record.")
    return found[0].name
