"""Names of sources for people, such as ``screen`` or ``watch:DIR``, and the camera that each one means."""

from __future__ import annotations

from typing import Final

from atomstream.cameras import list_cameras
from atomstream.cameras.names import ADAPTERS
from atomstream.errors import ConfigError

EXAMPLES: Final = "simulator, camera:basler:0, file:growth.tif, screen, watch:D:/frames"


def camera_name(source: str) -> str:
    """The name of the camera (:func:`atomstream.cameras.open_camera`) that ``source`` means.

    ``simulator``, ``camera:ID``, ``file:PATH``, ``screen`` (the whole first monitor), ``screen:X,Y,WIDTH,HEIGHT``,
    ``watch:FOLDER``. Names of cameras are accepted too.

    Raises:
        ConfigError: it is not a source, or there is no screen.
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
        f"{source!r} is not a source; sources are {EXAMPLES} (`atomstream camera list` shows the cameras)."
    )


def _whole_screen() -> str:
    found, not_searched = list_cameras(["screen"])
    if not found:
        raise ConfigError(not_searched.get("screen") or "There is no screen to record.")
    return found[0].name
