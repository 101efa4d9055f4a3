"""Names of cameras, such as ``basler:0``: which adapter opens them, and which cameras are found on this computer."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

from atomstream.cameras.camera import Camera, FoundCamera
from atomstream.checks import checked_text
from atomstream.errors import AtomstreamError, CameraError, ConfigError


class Adapter(NamedTuple):
    """Where the camera class of one kind is, which extra installs its driver, and how its names look."""

    module: str
    class_name: str
    extra: str
    example: str


ADAPTERS: dict[str, Adapter] = {
    "sim": Adapter("simulated", "SimulatedGrowth", "", "sim"),
    "file": Adapter("replay", "FileReplay", "", "file:PATH"),
    "folder": Adapter("watch_folder", "WatchFolder", "video", "folder:PATH"),
    "screen": Adapter("screen", "ScreenCamera", "screen", "screen:X,Y,W,H"),
    "basler": Adapter("basler", "Basler", "basler", "basler:SERIAL"),
    "genicam": Adapter("genicam", "GenICam", "genicam", "genicam:SERIAL"),
    "aravis": Adapter("aravis", "AravisCamera", "", "aravis:ID"),
    "vimba": Adapter("vimba", "Vimba", "vimba", "vimba:ID"),
    "micromanager": Adapter("micromanager", "MicroManager", "micromanager", "micromanager:CONFIG.cfg"),
    "epics": Adapter("epics", "EpicsCamera", "epics", "epics:PV"),
    "opencv": Adapter("opencv", "OpenCVCamera", "opencv", "opencv:0"),
}
"""Kind of camera (the part of a name before the colon) -> its adapter."""


def open_camera(name: str) -> Camera:
    """Return the camera with this name, not yet opened.

    The part before the first colon is the kind, the rest selects the camera: ``sim``, ``folder:D:/frames``,
    ``basler:0`` (the first one), ``basler:21234567`` (serial number).

    Raises:
        ConfigError: there is no such kind, its driver is not installed, or the rest of the name is invalid.
    """
    kind, _, which = checked_text("name", name).partition(":")
    if kind not in ADAPTERS:
        examples = ", ".join(adapter.example for adapter in ADAPTERS.values())
        raise ConfigError(f"{name!r} is not the name of a camera; names look like {examples}")
    camera: Camera = _camera_class(kind)(which)
    return camera


def list_cameras(kinds: Iterable[str] | None = None) -> tuple[list[FoundCamera], dict[str, str]]:
    """Search this computer for cameras of these kinds (None: all).

    Returns the cameras found, and for each kind that could not be searched the reason, such as a driver that is not
    installed.
    """
    if isinstance(kinds, str) or not isinstance(kinds, Iterable | None):
        raise TypeError(f"kinds must be a list of kinds, or None, not {kinds!r}")
    found: list[FoundCamera] = []
    not_searched: dict[str, str] = {}
    for kind in ADAPTERS if kinds is None else kinds:
        if checked_text("kinds", kind) not in ADAPTERS:
            raise ConfigError(f"{kind!r} is not a kind of camera; there are {', '.join(ADAPTERS)}")
        try:
            found += _camera_class(kind).found()
        except (AtomstreamError, OSError) as error:
            not_searched[kind] = str(error)
    return found, not_searched


def _camera_class(kind: str) -> Any:
    adapter = ADAPTERS[kind]
    module = importlib.import_module(f"atomstream.cameras.{adapter.module}")
    return getattr(module, adapter.class_name)


def driver(kind: str, package: str) -> Any:
    """Import the driver ``package`` of a kind of camera.

    The level of the root logger stays as the application set it: pymmcore-plus sets it to DEBUG.

    Raises:
        ConfigError: it is not installed; the message has the pip command.
    """
    root = logging.getLogger()
    level = root.level
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = ADAPTERS[kind].extra
        install = f": pip install 'atomstream[{extra}]'" if extra else ""
        raise ConfigError(f"{kind}: cameras need the package {package!r} ({error}){install}") from error
    finally:
        root.setLevel(level)


def chosen(kind: str, which: str, serials: list[str]) -> int:
    """Return the index of the camera ``which`` (an index from 0, a serial number, or empty: the first) in ``serials``.

    Raises:
        CameraError: there is no such camera; the message lists those that are there.
    """
    if which in serials:
        return serials.index(which)
    if which.isdecimal() and int(which) < len(serials):
        return int(which)
    if not which and serials:
        return 0
    there = ", ".join(f"{kind}:{serial}" for serial in serials) or "none"
    raise CameraError(f"There is no camera {kind}:{which}; found: {there}.")
