"""Calls of the asyncio reading client with the names, arguments and tables of the hosted service's client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from atomstream import protocol
from atomstream.checks import integer_in_range, number_in_range
from atomstream.client import hosted_tables
from atomstream.client.arguments import flag, ids, one_id, texts
from atomstream.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    import pandas

    from atomstream.client.stream_entry import StreamEntry
    from atomstream.service.api import ServiceApi

METHODS: Final = ("forecasting", "clustering", "intensity_profile")
SEVERITIES: Final = ("info", "warning", "critical")
INSTRUMENTS: Final = ("mbe", "cvd", "pvd", "sputter", "ald", "pld")


@dataclass(frozen=True, slots=True)
class SampleData:
    """A physical sample with its streams. ``data_results`` are those of frames, as ``get`` returns them.

    ``sample_metrics`` is the table of :meth:`Client.get_physical_sample_timeseries`, ``aligned_timeseries`` has the
    series of all streams as columns (data_id, ``"rheed"``, property) over UTC; None if they were not asked for.
    ``raw`` has all fields of the sample as the server sent them.
    """

    physical_sample_id: str
    physical_sample_name: str
    data_results: list[Any]
    sample_metrics: pandas.DataFrame | None
    aligned_timeseries: pandas.DataFrame | None
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProjectData:
    """A project with its physical samples."""

    project_id: str
    project_name: str
    samples: list[SampleData]
    aligned_timeseries: pandas.DataFrame | None


class HostedCalls(ABC):
    """Base of :class:`AsyncClient`. Tables are pandas DataFrames and need the extra ``frames``."""

    @property
    @abstractmethod
    def api(self) -> ServiceApi:
        """The HTTP calls."""

    @abstractmethod
    async def search(self, *arguments: Any, **named: Any) -> list[StreamEntry]:
        """See :meth:`AsyncClient.search`."""

    @abstractmethod
    def _stream(self, entry: StreamEntry) -> Any:
        """The data of one stream, as ``get`` returns it."""

    async def list_projects(self) -> pandas.DataFrame:
        """All projects as a table, one row each; :meth:`projects` returns them as maps."""
        return hosted_tables.projects_table(await self._maps("list the projects", protocol.PROJECTS_PATH))

    async def list_physical_samples(self) -> pandas.DataFrame:
        """All physical samples as a table, one row each; :meth:`samples` returns them as maps."""
        return hosted_tables.samples_table(await self._maps("list the samples", protocol.SAMPLES_PATH))

    async def get_physical_sample(
        self,
        physical_sample_id: str,
        *,
        include_organization_data: bool = True,
        align: bool = False,
        include_sample_metrics: bool = True,
    ) -> SampleData:
        """A physical sample: its streams of frames and, with ``include_sample_metrics``, its series.

        Args:
            physical_sample_id: the sample.
            include_organization_data: as of :meth:`search`.
            align: also ``aligned_timeseries``: the series of all streams as columns, with UTC as the index.
            include_sample_metrics: also ``sample_metrics``.

        Raises:
            NotFoundError: there is no such sample. ConfigError: an argument is of another type.
        """
        wanted = one_id(physical_sample_id)
        flag("include_sample_metrics", include_sample_metrics)
        found = await self._maps("list the samples", protocol.SAMPLES_PATH)
        sample = _chosen(found, wanted, "physical sample")
        return await self._sample(sample, include_organization_data, include_sample_metrics, align)

    async def get_project(
        self, project_id: str, *, include_organization_data: bool = True, align: bool = False
    ) -> ProjectData:
        """A project: its physical samples with their streams and series.

        Args:
            project_id: the project.
            include_organization_data: as of :meth:`search`.
            align: also ``aligned_timeseries`` of the project and of its samples, with UTC as the index.

        Raises:
            NotFoundError: there is no such project. ConfigError: an argument is of another type.
        """
        wanted = one_id(project_id)
        project = _chosen(await self._maps("list the projects", protocol.PROJECTS_PATH), wanted, "project")
        path = protocol.path(protocol.PROJECT_SAMPLES_PATH, project_id=wanted)
        samples = await self._maps(f"list the samples of project {wanted}", path)
        found = [await self._sample(sample, include_organization_data, True, align) for sample in samples]
        tables = [one.aligned_timeseries for one in found if one.aligned_timeseries is not None]
        aligned = hosted_tables.side_by_side(tables) if align else None
        return ProjectData(str(project["id"]), str(project.get("name") or ""), found, aligned)

    async def _sample(
        self, sample: Mapping[str, Any], organization: bool, metrics: bool, align: bool
    ) -> SampleData:
        flag("align", align)
        sample_id = str(sample["id"])
        entries = await self.search(physical_sample_ids=[sample_id], include_organization_data=organization)
        table = await self.get_physical_sample_timeseries(sample_id) if metrics else None
        streams = [self._stream(entry) for entry in entries]
        aligned = None
        if align:
            points = [(entry.data_id, await self.get_rheed_timeseries(entry.data_id)) for entry in entries]
            aligned = hosted_tables.side_by_side([hosted_tables.by_time(*one) for one in points])
        return SampleData(sample_id, str(sample.get("name") or ""), streams, table, aligned, sample)

    async def get_physical_sample_timeseries(
        self, physical_sample_id: str, *, property_names: Iterable[str] | None = None
    ) -> pandas.DataFrame:
        """The results of all streams of a sample on one time axis, one row per property and point.

        Args:
            physical_sample_id: the sample.
            property_names: properties such as ``"specular_intensity"``; None: all.

        Raises:
            NotFoundError: there is no such sample. ConfigError: an argument is of another type.
        """
        names = texts("property_names", property_names)
        path = protocol.path(protocol.SAMPLE_SERIES_PATH, sample_id=one_id(physical_sample_id))
        reply = await self._map(f"read the series of sample {physical_sample_id}", path)
        return self.api.reading.taken(
            "read the series of a sample", lambda: hosted_tables.series_table(reply["properties"], names)
        )

    async def get_rheed_timeseries(
        self,
        data_id: str,
        *,
        property_names: Iterable[str] | None = None,
        include_low_level_features: bool = False,
        last_n: int | None = None,
        elapsed_seconds: float | None = None,
    ) -> pandas.DataFrame:
        """Results of a stream as a table with the index (View ID, Frame Number), and UTC in ms since 1970.

        At most 20,000 points, evenly among all frames; :meth:`StreamData.to_pandas` has every frame.

        Args:
            data_id: the stream.
            property_names: properties such as ``"specular_intensity"``; None: the standard ones.
            include_low_level_features: also all other columns of the analysis.
            last_n: only the last points, from 1.
            elapsed_seconds: only the last seconds, from 0.

        Raises:
            NotFoundError: there is no such stream. ConfigError, TypeError: an argument is of another type.
        """
        query: dict[str, str | Sequence[str]] = {"property_names": texts("property_names", property_names)}
        if flag("include_low_level_features", include_low_level_features):
            query["include_low_level_features"] = "true"
        if last_n is not None:
            query["last_n"] = str(integer_in_range("last_n", last_n, 1, 10_000_000))
        if elapsed_seconds is not None:
            query["elapsed_seconds"] = repr(
                number_in_range("elapsed_seconds", elapsed_seconds, 0.0, 1e9, "s")
            )
        path = protocol.path(protocol.TIMESERIES_PATH, data_id=one_id(data_id))
        reply = await self._map(f"read the series of stream {data_id}", path, query)
        return self.api.reading.taken(
            "read the series of a stream", lambda: hosted_tables.points_table(reply["series_by_angle"])
        )

    async def get_rheed_azimuths(self, data_ids: str | Iterable[str]) -> pandas.DataFrame:
        """The views of azimuths of one or several streams, one row per view.

        Raises:
            NotFoundError: there is no such stream. ConfigError: an id is not a string.
        """
        views: list[dict[str, Any]] = []
        for data_id in [one_id(one) for one in ids("data_ids", data_ids)]:
            views += await self._views(data_id)
        return hosted_tables.views_table(views)

    async def set_rheed_azimuth(
        self, data_id: str, azimuth: str | None, view_id: str | None = None
    ) -> pandas.DataFrame:
        """Name the azimuth of a view, or of all views of a stream that does not turn; returns all views afterwards.

        Args:
            data_id: the stream.
            azimuth: such as ``"[110]"``; None: what the analysis finds.
            view_id: the view; needed for a turning sample, whose views have different azimuths.

        Raises:
            ConfigError: a turning sample without ``view_id``, or an argument of another type.
            NotFoundError: there is no such stream or view.
        """
        for name, value in (("azimuth", azimuth), ("view_id", view_id)):
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name} is {value!r}; it must be a string, or None.")
        views = await self._views(one_id(data_id))
        chosen = [view_id]
        if view_id is None:
            if not views or any(view.get("rpm") for view in views):
                raise ConfigError(
                    f"Stream {data_id} has {'views of several azimuths' if views else 'no view yet'}: give view_id, "
                    "one of those that get_rheed_azimuths lists."
                )
            chosen = [str(view["view_id"]) for view in views]
        for one in chosen:
            path = protocol.path(protocol.AZIMUTH_PATH, data_id=data_id, view_id=str(one))
            await self.api.reading.change(
                f"name the azimuth of stream {data_id}", "PATCH", path, {"label": azimuth}
            )
        return hosted_tables.views_table(await self._views(data_id))

    async def _views(self, data_id: str) -> list[dict[str, Any]]:
        path = protocol.path(protocol.AZIMUTHS_PATH, data_id=data_id)
        return await self._maps(f"list the azimuths of stream {data_id}", path)

    async def get_changepoints(
        self,
        data_ids: str | Iterable[str],
        latest_only: bool = True,
        detection_method: str | None = "intensity_profile",
        severity: str | None = "critical",
        as_dataframe: bool = True,
    ) -> pandas.DataFrame | list[dict[str, Any]]:
        """Changes of the sample that the analysis has found, as a table, or a list of maps without ``as_dataframe``.

        Args:
            data_ids: one stream, or several.
            latest_only: only those of the newest analysis; an atomstream server has no others.
            detection_method: ``"intensity_profile"`` (all of an atomstream server), ``"forecasting"`` or
                ``"clustering"``; None: all.
            severity: ``"critical"`` (all of an atomstream server), ``"warning"`` or ``"info"``; None: all.
            as_dataframe: False: a list of maps.

        Raises:
            ConfigError: an argument is of another type, or unknown.
        """
        wanted = [one_id(one) for one in ids("data_ids", data_ids)]
        _one_of("detection_method", detection_method, METHODS)
        _one_of("severity", severity, SEVERITIES)
        flag("as_dataframe", as_dataframe)
        latest = "True" if flag("latest_only", latest_only) else "False"
        found: list[dict[str, Any]] = []
        for first in range(0, len(wanted), 100):
            query = {"data_ids": wanted[first : first + 100], "latest_only": latest}
            reply = await self._map("read the changes", protocol.CHANGEPOINTS_PATH, query)
            found += self.api.reading.taken("read the changes", partial(_changepoints, reply))
        found = [
            one
            for one in found
            if detection_method in (None, one.get("detection_method"))
            and severity in (None, one.get("severity"))
        ]
        return hosted_tables.changes_table(found) if as_dataframe else hosted_tables.changes(found)

    async def list_growth_instruments(self) -> list[dict[str, Any]]:
        """All growth instruments: maps with ``synth_source_id``, ``source_name``, ``synth_source_type`` and others."""
        return await self._maps("list the instruments", protocol.INSTRUMENTS_PATH)

    async def create_growth_instrument(
        self, label: str, name: str, instrument_type: str, serial_id: str | None = None
    ) -> int:
        """Add a growth instrument to the list; returns its ``synth_source_id``.

        Args:
            label: its name, such as ``"Main MBE"``.
            name: maker and model, such as ``"Veeco GEN10"``.
            instrument_type: ``"mbe"``, ``"cvd"``, ``"pvd"``, ``"sputter"``, ``"ald"`` or ``"pld"``.
            serial_id: serial number.

        Raises:
            ConfigError: an argument is of another type, or the type is unknown.
        """
        _one_of("instrument_type", instrument_type, INSTRUMENTS)
        for what, value in (("label", label), ("name", name), ("serial_id", serial_id)):
            if not isinstance(value, str) and (what != "serial_id" or value is not None):
                raise ConfigError(f"{what} is {value!r}; it must be a string.")
        body = {"label": label, "name": name, "type": instrument_type, "serial_id": serial_id}
        reply = await self.api.reading.change("add an instrument", "POST", protocol.INSTRUMENTS_PATH, body)
        return self.api.reading.taken("add an instrument", lambda: int(reply["synth_source_id"]))

    async def delete_growth_instrument(self, synth_source_id: int) -> None:
        """Delete a growth instrument from the list.

        Raises:
            NotFoundError: there is no such instrument. TypeError: it is not a whole number.
        """
        number = integer_in_range("synth_source_id", synth_source_id, 0, 10**15 - 1)
        await self.api.reading.change(
            f"delete instrument {number}",
            "DELETE",
            protocol.INSTRUMENTS_PATH,
            query={"synthesis_instrument_ids": str(number)},
        )

    async def _map(
        self, what: str, path: str, query: Mapping[str, str | Sequence[str]] | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self.api.reading.document(what, path, query or {}, dict)
        return found

    async def _maps(self, what: str, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.api.reading.document(what, path, {}, list)
        return found


def _chosen(found: Iterable[Mapping[str, Any]], wanted: str, what: str) -> Mapping[str, Any]:
    for one in found:
        if str(one.get("id")).lower() == wanted.strip().lower():
            return one
    raise NotFoundError(f"There is no {what} {wanted} (or this API key may not see it).", status=404)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value is not None and (not isinstance(value, str) or value not in known):
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")


def _changepoints(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(reply["changepoints"])
