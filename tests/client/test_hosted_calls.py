"""The methods of the reading clients that have the names of the hosted service's client, against a real server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream import AsyncClient, Client, RHEEDStreamer
from atomstream.errors import ConfigError, NotFoundError
from tests.live_helpers import FPS, growth
from tests.live_server import LiveServer, ThreadedServer, new_folders

NOBODY = "99999999-9999-4999-8999-999999999999"
CHUNK = 60


class Recorded:
    """A server with two streams of one sample in a project; the second one turns."""

    def __init__(self, server: ThreadedServer, folder: Path) -> None:
        self.server = server
        self.project_id = self._post("/projects/", {"name": "Nitrides"})["id"]
        frames = growth(2 * CHUNK)
        with RHEEDStreamer(server.api_key, server.url, spool_dir=folder, clock_sync=False) as streamer:
            with pytest.warns(UserWarning, match="chunk_size"):
                self.still = streamer.initialize(FPS, 0.0, CHUNK, "still", "GaN 7", self.project_id)
            with pytest.warns(UserWarning, match="chunk_size"):
                self.turning = streamer.initialize(FPS, 30.0, CHUNK, "turning", "GaN 7", self.project_id)
            for data_id, begin_ms in ((self.still, 1.7e12), (self.turning, 1.7e12 + 60e3)):
                for k in range(2):
                    part = frames[k * CHUNK : (k + 1) * CHUNK]
                    streamer.push(data_id, k, part, begin_ms + 1e3 * k * CHUNK / FPS)
            for data_id in (self.still, self.turning):
                streamer.finalize(data_id)
                for _ in streamer.results(data_id):
                    pass
        with self.client() as client:  # so that the server's threads for reading run before the first test
            client.get_rheed_timeseries(self.still, last_n=1)
            client.get(self.still).results()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"X-API-KEY": self.server.api_key, "Content-Type": "application/json"}
        request = urllib.request.Request(self.server.url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def client(self) -> Client:
        """A client of this server."""
        return Client(self.server.api_key, self.server.url)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with new_folders() as new_folder:
        server = ThreadedServer(LiveServer(data_dir=new_folder()))
        server.start()
        try:
            yield Recorded(server, tmp_path_factory.mktemp("spool"))
        finally:
            server.stop()


def test_lists(recorded: Recorded) -> None:
    """Projects and samples as tables with the columns that users of the hosted service know."""
    with recorded.client() as client:
        projects, samples = client.list_projects(), client.list_physical_samples()
        assert projects["Project ID"].tolist() == [recorded.project_id]
        assert projects["Physical Sample Count"].tolist() == [1]
        assert samples["Physical Sample Name"].tolist() == ["GaN 7"]
        assert samples["Project Name"].tolist() == ["Nitrides"]
        assert samples["Data Items"].tolist() == [2]


def test_series_of_a_stream(recorded: Recorded) -> None:
    """One row per frame, with the values that the results have, and the last rows only if they are asked for."""
    with recorded.client() as client:
        table = client.get_rheed_timeseries(recorded.still)
        results = client.get(recorded.still).results(["specular_intensity"])
        assert table.index.names == ["View ID", "Frame Number"]
        np.testing.assert_allclose(table["Specular Intensity"], results["specular_intensity"], rtol=1e-6)
        assert table["UNIX Timestamp"].iloc[0] == pytest.approx(1.7e12)
        last = client.get_rheed_timeseries(
            recorded.still, property_names=["specular_intensity"], last_n=3, include_low_level_features=True
        )
        assert last.index.get_level_values("Frame Number").tolist() == [117, 118, 119]
        assert "specular_x" in last.columns
        assert "Lattice Spacing" not in last.columns
        assert len(client.get_rheed_timeseries(recorded.still, elapsed_seconds=0.5)) == 30


def test_a_sample_and_its_project(recorded: Recorded) -> None:
    """A sample has its streams and their series on one time axis; a project has its samples."""
    with recorded.client() as client:
        (sample_id,) = client.list_physical_samples()["Physical Sample ID"]
        sample = client.get_physical_sample(sample_id, align=True)
        assert {one.info.data_id for one in sample.data_results} == {recorded.still, recorded.turning}
        assert sample.data_results[0].frames.shape == (2 * CHUNK, 240, 320)
        assert sample.sample_metrics is not None
        assert set(sample.sample_metrics["property_name"]) >= {"specular_intensity"}
        aligned = sample.aligned_timeseries
        assert aligned is not None
        assert aligned.index.is_monotonic_increasing
        column = aligned[(recorded.still, "rheed", "Specular Intensity")].dropna()
        assert len(column) == 2 * CHUNK
        assert column.index[0].timestamp() == pytest.approx(1.7e9)
        (first,) = client.get_project(recorded.project_id).samples
        assert (first.physical_sample_id, first.aligned_timeseries) == (sample_id, None)
        only = client.get_physical_sample_timeseries(sample_id, property_names=["specular_intensity"])
        assert set(only["property_name"]) == {"specular_intensity"}
        assert only["value"].notna().all()


def test_azimuths(recorded: Recorded) -> None:
    """The only view of a stream that does not turn can be named; a turning one needs the view."""
    with recorded.client() as client:
        assert client.get_rheed_azimuths([recorded.still, recorded.turning])["data_id"].nunique() == 2
        named = client.set_rheed_azimuth(recorded.still, "[110]")
        assert named["azimuth_label"].tolist() == ["[110]"]
        assert client.set_rheed_azimuth(recorded.still, None)["azimuth_label"].tolist() == [None]
        with pytest.raises(ConfigError, match="view_id"):
            client.set_rheed_azimuth(recorded.turning, "[110]")


def test_changepoints_and_instruments(recorded: Recorded) -> None:
    """Changes are those of the server; instruments are added and deleted."""
    with recorded.client() as client:
        changes = client.get_changepoints(
            [recorded.still, recorded.turning], severity=None, as_dataframe=False
        )
        table: Any = client.get_changepoints([recorded.still, recorded.turning], severity=None)
        assert table["property_name"].tolist() == [one["property_name"] for one in changes]
        assert client.get_changepoints(recorded.still, severity="info", as_dataframe=False) == []
        number = client.create_growth_instrument("Main MBE", "Veeco GEN10", "mbe")
        (one,) = client.list_growth_instruments()
        assert (one["synth_source_id"], one["source_name"]) == (number, "Main MBE")
        client.delete_growth_instrument(number)
        assert client.list_growth_instruments() == []
        with pytest.raises(NotFoundError):
            client.delete_growth_instrument(number)


def test_several_streams_at_once(recorded: Recorded) -> None:
    """A list of ids gives a list in its order; an unknown one is an error that names it."""
    with recorded.client() as client:
        found = client.get([recorded.turning, recorded.still, recorded.turning])
        assert [one.info.name for one in found] == ["turning", "still", "turning"]
        assert client.get([]) == []
        with pytest.raises(NotFoundError, match=NOBODY):
            client.get([recorded.still, NOBODY])


def test_the_arguments_of_search(recorded: Recorded) -> None:
    """The hosted service's types of data and its other arguments choose as their names say."""
    with recorded.client() as client:
        for data_type, names in (
            ("all", {"still", "turning"}),
            ("rheed_rotating", {"turning"}),
            ("rheed_stationary", {"still"}),
            ("xrd", set()),
            ("tool_state", set()),
        ):
            assert {entry.name for entry in client.search(data_type=data_type)} == names, data_type
        assert len(client.search(include_organization_data=False)) == 2
        some = client.search("still", last_accessed_datetime=(None, None))
        assert [entry.name for entry in some] == ["still"]
        for wrong in (
            {"data_type": "sound"},
            {"data_type": "rheed", "kind": "all"},
            {"include_organization_data": 1},
            {"last_accessed_datetime": 5},
        ):
            with pytest.raises(ConfigError):
                client.search(**wrong)  # type: ignore[arg-type] # wrong on purpose


async def test_asyncio(recorded: Recorded) -> None:
    """The asynchronous client has the same calls, and its streams are awaited."""
    async with AsyncClient(recorded.server.api_key, recorded.server.url) as client:
        (sample_id,) = (await client.list_physical_samples())["Physical Sample ID"]
        sample = await client.get_physical_sample(sample_id, include_sample_metrics=False)
        frames = await sample.data_results[0].frames()
        assert len(frames) == 2 * CHUNK
        assert sample.sample_metrics is None
        two = await client.get([recorded.still, recorded.turning])
        assert [one.info.name for one in two] == ["still", "turning"]


def test_what_is_not_there(recorded: Recorded) -> None:
    """Unknown ids raise NotFoundError, an invalid id raises ConfigError."""
    with recorded.client() as client:
        for call in (
            client.get_physical_sample,
            client.get_project,
            client.get_physical_sample_timeseries,
            client.get_rheed_timeseries,
            client.get_rheed_azimuths,
        ):
            with pytest.raises(NotFoundError):
                call(NOBODY)
            with pytest.raises(ConfigError, match="must be"):
                call(5)  # type: ignore[arg-type] # wrong on purpose
