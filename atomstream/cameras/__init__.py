"""Cameras: one interface for all drivers, and a grabber that delivers their frames and counts those that are missing.

``open_camera("basler:0")`` returns a camera, ``list_cameras()`` those that are connected. Drivers are optional packages
and are imported only when a camera of their kind is opened.
"""

from __future__ import annotations

from .camera import Camera, CameraFrame, CameraInfo, CameraSettings, FoundCamera, Region
from .feed import CameraFeed
from .grabber import Grabber, GrabCounts
from .names import list_cameras, open_camera
from .transforms import Transforms

__all__ = [
    "Camera",
    "CameraFeed",
    "CameraFrame",
    "CameraInfo",
    "CameraSettings",
    "FoundCamera",
    "GrabCounts",
    "Grabber",
    "Region",
    "Transforms",
    "list_cameras",
    "open_camera",
]
