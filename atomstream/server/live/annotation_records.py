"""Annotations of the user as records: events, regions, the calibration, labels of azimuths.

The same records are stored in a stream's ``inputs.log``, sent to its analyzer, and are the bodies of requests and
replies. docs/live_api.md describes them for other programs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from atomstream.analysis import Box, Line
from atomstream.errors import ConfigError
from atomstream.protocol import MAX_NAME_CHARS
from atomstream.results import REGION, column_name
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

# -- regions ---------------------------------------------------------------------------------------------


class BoxRecord(msgspec.Struct, frozen=True, tag_field="type", tag="box"):
    """A box: centre and size in px."""

    name: str
    x: float
    y: float
    width: float
    height: float
    tracked: bool = False


class LineRecord(msgspec.Struct, frozen=True, tag_field="type", tag="line"):
    """A line from (x0, y0) to (x1, y1), averaged over ``width``, all in px."""

    name: str
    x0: float
    y0: float
    x1: float
    y1: float
    width: float = 1.0


RegionRecord: TypeAlias = BoxRecord | LineRecord


def from_region(region: Box | Line) -> RegionRecord:
    """Record of a region of the analysis."""
    if isinstance(region, Box):
        return BoxRecord(region.name, region.x, region.y, region.width, region.height, region.tracked)
    return LineRecord(region.name, region.x0, region.y0, region.x1, region.y1, region.width)


def to_region(record: RegionRecord) -> Box | Line:
    """Region for the analysis. Raises ConfigError for sizes or places that are not allowed."""
    fields = msgspec.structs.asdict(record)
    return Box(**fields) if isinstance(record, BoxRecord) else Line(**fields)


def check_regions(records: Iterable[RegionRecord]) -> list[RegionRecord]:
    """The regions as a list. Raises ConfigError for invalid ones and for two with the same name or column."""
    regions = [to_region(record) for record in records]
    columns = [column_name(f"{REGION}{region.name}") for region in regions]
    if len(set(columns)) != len(columns):
        raise ConfigError(
            "regions: two have the same name (upper and lower case, blanks and signs make no difference)"
        )
    if any(not region.name.strip() or len(region.name) > 50 for region in regions):
        raise ConfigError("regions: a name has 1 to 50 characters")
    return [from_region(region) for region in regions]


# -- calibration and azimuths ----------------------------------------------------------------------------


class CalibrationRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A :class:`~atomstream.analysis.Calibration` on disk and on the wire: fields that were not given are absent."""

    beam_energy: float | None = None
    screen_sample_distance: float | None = None
    px_per_mm: float | None = None
    incidence_deg: float = 0.0
    layer_thickness_nm: float | None = None
    layer_unit: str = "monolayer"
    miller_n: float = 1.0
    reference_spacing_px: float | None = None


class AzimuthChanges(msgspec.Struct, frozen=True):
    """What the user has changed of an azimuth's view; UNSET fields were not changed."""

    enabled: bool | UnsetType = UNSET
    label: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)] | UnsetType | None = UNSET

    def followed_by(self, later: AzimuthChanges) -> AzimuthChanges:
        """Both changes together; ``later`` replaces what both have set."""
        return AzimuthChanges(
            self.enabled if later.enabled is UNSET else later.enabled,
            self.label if later.label is UNSET else later.label,
        )

    @property
    def is_enabled(self) -> bool:
        """True unless the user has disabled the view."""
        return self.enabled is not False

    def label_or(self, default: str | None) -> str | None:
        """The user's label; ``default`` if the user has set none."""
        return default if self.label is UNSET else self.label


# -- entries of the log ----------------------------------------------------------------------------------


class NewMark(msgspec.Struct, frozen=True):
    """An event that the user adds. ``time_ms_utc`` None means now; a repeat of an ``id`` adds nothing."""

    kind: str
    label: str
    time_ms_utc: float | None = None
    value: float | None = None
    unit: str = ""
    id: str | None = None

    def entry(self) -> EventEntry:
        """The entry for the log, with the time and the id that were left out."""
        at = 1000.0 * time.time() if self.time_ms_utc is None else self.time_ms_utc
        return EventEntry(self.id or str(uuid.uuid4()), self.kind, self.label, at, self.value, self.unit)


class EventEntry(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="what", tag="event"):
    """An event of the user; ``value`` depends on ``kind`` (:class:`~atomstream.results.Event`)."""

    id: str
    kind: str
    label: str
    time_ms_utc: float
    value: float | None
    unit: str = ""

    @property
    def version(self) -> int:
        """1: no correction came before it."""
        return 1

    @property
    def deleted(self) -> bool:
        """False: only a correction deletes an event."""
        return False


class EventChangeEntry(msgspec.Struct, frozen=True, tag_field="what", tag="event_change"):
    """A correction of an event: its complete content from now on. The entries before it stay in the log.

    Of two corrections with the same ``version`` the first one in the log holds. ``change_id`` identifies the
    correction.
    """

    id: str
    version: int
    kind: str
    label: str
    time_ms_utc: float
    value: float | None
    unit: str = ""
    deleted: bool = False
    changed_unix_ms: float = 0.0
    change_id: str = ""


EventState: TypeAlias = EventEntry | EventChangeEntry
"""What an event was set to, or corrected to."""


class RegionsEntry(msgspec.Struct, frozen=True, tag_field="what", tag="regions"):
    """All regions of the user, in place of those before."""

    regions: list[RegionRecord]


class CalibrationEntry(msgspec.Struct, frozen=True, tag_field="what", tag="calibration"):
    """The calibration, in place of the one before."""

    calibration: CalibrationRecord


class AzimuthEntry(msgspec.Struct, frozen=True, tag_field="what", tag="azimuth"):
    """Changes of an azimuth's view."""

    view_id: str
    changes: AzimuthChanges = msgspec.field(name="said")


SettingEntry: TypeAlias = RegionsEntry | CalibrationEntry | AzimuthEntry
"""An entry that replaces a setting."""


class LostEntry(msgspec.Struct, frozen=True, tag_field="what", tag="lost"):
    """Stands for an entry that can't be read any more, so that the numbers of the others stay."""


AnnotationEntry: TypeAlias = (
    EventEntry | EventChangeEntry | RegionsEntry | CalibrationEntry | AzimuthEntry | LostEntry
)


def read_entry(stored: dict[str, Any]) -> AnnotationEntry:
    """The entry of a stored map. Any other map gives a :class:`LostEntry`, and a warning in the log."""
    try:
        entry: AnnotationEntry = msgspec.convert(stored, AnnotationEntry)
    except msgspec.ValidationError as error:
        log.warning("an annotation of a stream is ignored, because it can't be read: %s", error)
        return LostEntry()
    return entry


# -- entries for an analyzer -----------------------------------------------------------------------------


class TimedEvent(msgspec.Struct, frozen=True, tag_field="what", tag="event"):
    """An event of the user at ``time_s``, in s from the stream's first frame."""

    kind: str
    label: str
    value: float | None
    time_s: float
    id: str = ""


class CorrectedEvent(msgspec.Struct, frozen=True, tag_field="what", tag="corrected"):
    """The event ``before`` was corrected to ``after``; None: it was deleted."""

    before: TimedEvent
    after: TimedEvent | None


AnalyzerEntry: TypeAlias = TimedEvent | CorrectedEvent | RegionsEntry | CalibrationEntry
