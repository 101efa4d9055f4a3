"""Calls of the blocking reading client with the names, arguments and tables of the hosted service's client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from atomstream.client.hosted_calls import HostedCalls, ProjectData, SampleData

if TYPE_CHECKING:
    import pandas

    from atomstream.client.stream_data import StreamData
    from atomstream.client.stream_entry import StreamEntry

T = TypeVar("T")


class BlockingHostedCalls(ABC):
    """Base of :class:`Client`: the methods of :class:`HostedCalls`, which describe the arguments."""

    @property
    @abstractmethod
    def _hosted(self) -> HostedCalls:
        """The asynchronous client."""

    @abstractmethod
    def _call(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Run an asynchronous call in the client's event loop."""

    @abstractmethod
    def _data(self, entry: StreamEntry) -> StreamData:
        """The data of one stream, as ``get`` returns it."""

    def list_projects(self) -> pandas.DataFrame:
        """All projects as a table, one row each; :meth:`projects` returns them as maps."""
        return self._call(self._hosted.list_projects)

    def list_physical_samples(self) -> pandas.DataFrame:
        """All physical samples as a table, one row each; :meth:`samples` returns them as maps."""
        return self._call(self._hosted.list_physical_samples)

    def get_physical_sample(
        self,
        physical_sample_id: str,
        *,
        include_organization_data: bool = True,
        align: bool = False,
        include_sample_metrics: bool = True,
    ) -> SampleData:
        """A physical sample: its streams of frames and its series. See :meth:`AsyncClient.get_physical_sample`."""
        found = self._call(
            partial(
                self._hosted.get_physical_sample,
                physical_sample_id,
                include_organization_data=include_organization_data,
                align=align,
                include_sample_metrics=include_sample_metrics,
            )
        )
        return self._blocking(found)

    def get_project(
        self, project_id: str, *, include_organization_data: bool = True, align: bool = False
    ) -> ProjectData:
        """A project: its physical samples with their streams and series. See :meth:`AsyncClient.get_project`."""
        found = self._call(
            partial(
                self._hosted.get_project,
                project_id,
                include_organization_data=include_organization_data,
                align=align,
            )
        )
        return replace(found, samples=[self._blocking(sample) for sample in found.samples])

    def _blocking(self, sample: SampleData) -> SampleData:
        return replace(sample, data_results=[self._data(one.info) for one in sample.data_results])

    def get_physical_sample_timeseries(
        self, physical_sample_id: str, *, property_names: Iterable[str] | None = None
    ) -> pandas.DataFrame:
        """The results of all streams of a sample on one time axis, one row per property and point.

        See :meth:`AsyncClient.get_physical_sample_timeseries`.
        """
        return self._call(
            partial(
                self._hosted.get_physical_sample_timeseries, physical_sample_id, property_names=property_names
            )
        )

    def get_rheed_timeseries(
        self,
        data_id: str,
        *,
        property_names: Iterable[str] | None = None,
        include_low_level_features: bool = False,
        last_n: int | None = None,
        elapsed_seconds: float | None = None,
    ) -> pandas.DataFrame:
        """Results of a stream as a table with the index (View ID, Frame Number).

        See :meth:`AsyncClient.get_rheed_timeseries`.
        """
        return self._call(
            partial(
                self._hosted.get_rheed_timeseries,
                data_id,
                property_names=property_names,
                include_low_level_features=include_low_level_features,
                last_n=last_n,
                elapsed_seconds=elapsed_seconds,
            )
        )

    def get_rheed_azimuths(self, data_ids: str | Iterable[str]) -> pandas.DataFrame:
        """The views of azimuths of one or several streams, one row per view."""
        return self._call(partial(self._hosted.get_rheed_azimuths, data_ids))

    def set_rheed_azimuth(
        self, data_id: str, azimuth: str | None, view_id: str | None = None
    ) -> pandas.DataFrame:
        """Name the azimuth of a view; returns all views afterwards. See :meth:`AsyncClient.set_rheed_azimuth`."""
        return self._call(partial(self._hosted.set_rheed_azimuth, data_id, azimuth, view_id))

    def get_changepoints(
        self,
        data_ids: str | Iterable[str],
        latest_only: bool = True,
        detection_method: str | None = "intensity_profile",
        severity: str | None = "critical",
        as_dataframe: bool = True,
    ) -> pandas.DataFrame | list[dict[str, Any]]:
        """Changes of the sample that the analysis has found. See :meth:`AsyncClient.get_changepoints`."""
        return self._call(
            partial(
                self._hosted.get_changepoints, data_ids, latest_only, detection_method, severity, as_dataframe
            )
        )

    def list_growth_instruments(self) -> list[dict[str, Any]]:
        """All growth instruments: maps with ``synth_source_id``, ``source_name``, ``synth_source_type`` and others."""
        return self._call(self._hosted.list_growth_instruments)

    def create_growth_instrument(
        self, label: str, name: str, instrument_type: str, serial_id: str | None = None
    ) -> int:
        """Add a growth instrument to the list; returns its ``synth_source_id``.

        See :meth:`AsyncClient.create_growth_instrument`.
        """
        return self._call(
            partial(self._hosted.create_growth_instrument, label, name, instrument_type, serial_id)
        )

    def delete_growth_instrument(self, synth_source_id: int) -> None:
        """Delete a growth instrument from the list. See :meth:`AsyncClient.delete_growth_instrument`."""
        self._call(partial(self._hosted.delete_growth_instrument, synth_source_id))
