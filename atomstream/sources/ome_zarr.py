"""What an OME-Zarr group (NGFF 0.1 to 0.5) states: its full image, the axes, and the time between frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .axes import letters_of_names
from .times import unit_seconds


@dataclass(frozen=True, slots=True)
class Image:
    """The image of a group in full resolution."""

    array: str
    axes: str | None
    time_step_s: float | None
    """Time between frames in s, None if the file does not state it with a unit."""


def image_of(group: Any) -> Image | None:
    """Return the image that the attributes of a Zarr group describe, None if it is not an OME-Zarr group."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome")
    scales: Any = (ome if isinstance(ome, Mapping) else attributes).get("multiscales")
    try:
        scale: Mapping[str, Any] = scales[0]
        dataset = scale["datasets"][0]
        axes = _axes(scale)
        return Image(
            str(dataset["path"]), letters_of_names([a["name"] for a in axes]), _step(scale, dataset, axes)
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _axes(scale: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the axes as dictionaries; version 0.3 has names only, versions before always these five."""
    axes = scale.get("axes", ["t", "c", "z", "y", "x"])
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _step(
    scale: Mapping[str, Any], dataset: Mapping[str, Any], axes: Sequence[Mapping[str, Any]]
) -> float | None:
    step = 1.0
    place = next((k for k, axis in enumerate(axes) if str(axis["name"]).casefold() in ("t", "time")), None)
    unit = None if place is None else unit_seconds(axes[place].get("unit"))
    if place is None or unit is None:
        return None
    for source in (dataset, scale):
        for transformation in source.get("coordinateTransformations", []):
            if transformation.get("type") == "scale":
                step *= float(transformation["scale"][place])
    return step * unit if step > 0 else None
