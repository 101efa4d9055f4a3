"""The catalogue: names, links and searches. Equal names are one sample, and all entries survive a rebuild."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import ConfigError
from atomstream.protocol import normalized_name
from atomstream.server import reindex
from atomstream.server.catalogue import streams_table as entries
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames

UNKNOWN = "5db5c30e-a4e7-4404-bbce-e2c3e2c819bc"
HOSTILE = [
    "'); DROP TABLE samples; --",
    "<script>alert(1)</script>",
    "%_\\",
    "null\x00byte",
    "\u202egnirts",
    "😀" * 50,
]


async def test_lengths_are_always_current(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read returns the current length, however seldom lengths are written; the end of a stream writes them."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
        monkeypatch.setattr(entries, "GROWN_PERIOD_S", 1e9)
        written: list[int] = []
        growth = entries._growth

        def noted(data_id: str, n_frames: int, at: str) -> object:
            written.append(n_frames)
            return growth(data_id, n_frames, at)

        monkeypatch.setattr(entries, "_growth", noted)
        for index in (2, 1, 3):
            assert (await client.send(data_id, index, make_frames(4, seed=index)))[0] == 200
        assert written == []
        _, found = await client.ask("GET", "/data_entries/")
        assert found[0]["file_metadata"]["n_frames"] == 16
        await client.send(data_id, 4, make_frames(3))
        await client.end(data_id)
    assert written == [16, 19]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Wafer-A1", "wafer-a1"),
        ("Wafer-A1", "  WAFER-A1\t"),
        ("Größe", "GRÖSSE"),
        ("Größe", "Gro\u0308ße"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("Åland", "A\u030aland"),
        ("\u00a0Probe\u2003", "probe"),
        ("ᾯ\u0327", "ὧ\u0327ι"),
    ],
)
async def test_same_names_are_one_sample(serve: Serve, first: str, second: str) -> None:
    """A name that differs only in case, outer blanks or Unicode form is 409, with the existing sample's id."""
    server = await serve()
    async with WireClient(server) as client:
        _, made = await client.ask("POST", "/physical_samples/", {"name": first})
        status, reply = await client.ask("POST", "/physical_samples/", {"name": second})
        _, samples = await client.ask("GET", "/physical_samples/")
    assert (status, reply) == (409, {"detail": {"physical_sample_id": made["id"]}})
    assert [sample["name"] for sample in samples] == [first.strip()]


async def test_race_of_creations_ends_with_one_sample(serve: Serve) -> None:
    """Of twenty concurrent creations one succeeds, and the others receive its id."""
    server = await serve()
    async with WireClient(server) as client:
        names = ["Wafer-A1", "wafer-a1 ", "WAFER-A1", " Wafer-a1"] * 5
        replies = await asyncio.gather(
            *[client.ask("POST", "/physical_samples/", {"name": n}) for n in names]
        )
        _, samples = await client.ask("GET", "/physical_samples/")
    made = [reply["id"] for status, reply in replies if status == 200]
    reported = {reply["detail"]["physical_sample_id"] for status, reply in replies if status == 409}
    assert len(made) == 1
    assert reported == set(made) == {sample["id"] for sample in samples}


async def test_duplicate_tags_and_projects(serve: Serve) -> None:
    """The second creation of a tag is 400, that of a project 409 with the existing project's id."""
    server = await serve()
    async with WireClient(server) as client:
        assert (await client.ask("POST", "/tags/", {"name": "GaN"}))[0] == 200
        assert (await client.ask("POST", "/tags/", {"name": " gan "}))[0] == 400
        _, project = await client.ask("POST", "/projects/", {"name": "Nitrides"})
        status, reply = await client.ask("POST", "/projects/", {"name": "nitrides"})
        assert (status, reply["detail"]) == (409, {"project_id": project["id"]})
        assert (await client.ask("POST", "/projects/", {"name": "Oxides", "id": project["id"]}))[0] == 409


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_only_text(serve: Serve, name: str) -> None:
    """SQL, HTML and odd characters in names are returned unchanged and do no harm."""
    server = await serve()
    async with WireClient(server) as client:
        _, sample = await client.ask("POST", "/physical_samples/", {"name": name})
        _, tag = await client.ask("POST", "/tags/", {"name": name})
        data_id = await client.create(name)
        await client.ask(
            "POST",
            "/data_entries/physical_sample",
            {"data_ids": [data_id], "physical_sample_id": sample["id"]},
        )
        await client.ask("POST", "/tags/data-items/", {"data_ids": [data_id], "tag_ids": [tag["id"]]})
        await client.create("unrelated")
        status, found = await client.ask("GET", "/data_entries/", params={"keywords": name})
    assert status == 200
    assert [(one["raw_name"], one["physical_sample_name"], one["tags"][0]["name"]) for one in found] == [
        (name,) * 3
    ]


async def test_tracking_sets_one_active_sample(serve: Serve) -> None:
    """A project tracks the last sample that was set, counts both, and samples list their projects."""
    server = await serve()
    async with WireClient(server) as client:
        _, project = await client.ask("POST", "/projects/", {"name": "Nitrides"})
        ids = [(await client.ask("POST", "/physical_samples/", {"name": n}))[1]["id"] for n in ("A", "B")]
        path = f"/projects/{project['id']}/configuration/tracking_samples"
        for sample in ids:
            assert (await client.ask("POST", path, {"physical_sample_id": sample, "set_active": True}))[
                0
            ] == 200
        _, (listed,) = await client.ask("GET", "/projects/")
        _, samples = await client.ask("GET", "/physical_samples/")
        assert (await client.ask("POST", path, {"physical_sample_id": UNKNOWN}))[0] == 404
        other = path.replace(project["id"], UNKNOWN)
        assert (await client.ask("POST", other, {"physical_sample_id": ids[0]}))[0] == 404
    assert listed["physical_sample_count"] == 2
    assert listed["tracking_physical_sample_id"] == ids[1]
    assert all(sample["projects"] == [{"id": project["id"], "name": "Nitrides"}] for sample in samples)


async def test_unknown_links_change_nothing(serve: Serve) -> None:
    """A link to a missing sample, tag, project or stream is 404, and no part of it is created."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        _, tag = await client.ask("POST", "/tags/", {"name": "GaN"})
        before = await client.entry(data_id)
        for path, body in (
            ("/data_entries/physical_sample", {"data_ids": [data_id], "physical_sample_id": UNKNOWN}),
            ("/tags/data-items/", {"data_ids": [data_id], "tag_ids": [tag["id"], UNKNOWN]}),
            ("/tags/data-items/", {"data_ids": [data_id, UNKNOWN], "tag_ids": [tag["id"]]}),
            (
                "/rheed/stream/",
                {
                    "data_item_name": "x",
                    "rotations_per_min": 0.0,
                    "fps_capture_rate": 1.0,
                    "project_id": UNKNOWN,
                },
            ),
        ):
            assert (await client.ask("POST", path, body))[0] == 404
        assert await client.entry(data_id) == before
        assert len((await client.ask("GET", "/data_entries/"))[1]) == 1


SEARCHES: list[tuple[dict[str, str], set[str]]] = [
    ({}, {"long", "short"}),
    ({"keywords": "ONG"}, {"long"}),
    ({"keywords": "gan"}, {"long"}),
    ({"keywords": "wafer"}, {"short"}),
    ({"status": "success"}, {"short"}),
    ({"status": "all"}, {"long", "short"}),
    ({"data_type": "rheed"}, {"long", "short"}),
    ({"data_type": "xps"}, set()),
    ({"growth_length_min": "0.05"}, {"long"}),
    ({"growth_length_max": "0.05"}, {"short"}),
    ({"upload_datetime_min": "2020-01-01"}, {"long", "short"}),
    ({"upload_datetime_max": "2020-01-01T00:00:00Z"}, set()),
    ({"last_updated_min": "2020-01-01T00:00:00+05:00"}, {"long", "short"}),
    ({"data_ids": UNKNOWN}, set()),
    ({"physical_sample_ids": UNKNOWN}, set()),
    ({"project_ids": UNKNOWN}, set()),
    ({"include_organization_data": "true"}, {"long", "short"}),
]


async def test_search(serve: Serve) -> None:
    """Each filter of ``GET /data_entries/`` finds exactly the matching streams."""
    server = await serve()
    async with WireClient(server) as client:
        await add_streams(client)
        for query, found in SEARCHES:
            status, entries = await client.ask("GET", "/data_entries/", params=query)
            assert status == 200, query
            assert {entry["raw_name"] for entry in entries} == found, query


async def add_streams(client: WireClient) -> dict[str, str]:
    """Create two streams: ``long`` (8 frames, tag GaN, active), ``short`` (4, sample Wafer-A1, ended)."""
    ids = {name: await client.create(name) for name in ("long", "short")}
    for k in range(2):
        await client.send(ids["long"], k, make_frames(4, seed=k))
    await client.send(ids["short"], 0, make_frames(4))
    _, tag = await client.ask("POST", "/tags/", {"name": "GaN"})
    _, sample = await client.ask("POST", "/physical_samples/", {"name": "Wafer-A1"})
    await client.ask("POST", "/tags/data-items/", {"data_ids": [ids["long"]], "tag_ids": [tag["id"]]})
    await client.ask(
        "POST",
        "/data_entries/physical_sample",
        {"data_ids": [ids["short"]], "physical_sample_id": sample["id"]},
    )
    await client.end(ids["short"])
    return ids


@pytest.mark.parametrize(
    "query",
    [{"growth_length_min": "long"}, {"growth_length_max": "nan"}, {"upload_datetime_min": "yesterday"}],
    ids=str,
)
async def test_bad_filters_are_400(serve: Serve, query: dict[str, str]) -> None:
    """An invalid number or time is 400, not an empty list."""
    server = await serve()
    async with WireClient(server) as client:
        assert (await client.ask("GET", "/data_entries/", params=query))[0] == 400


async def test_single_frames_and_images(serve: Serve) -> None:
    """A stream has no single frames: an empty list, and 404 for an image."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        path = "/data_entries/video_single_frames/"
        assert await client.ask("GET", path + data_id) == (200, {"frames": []})
        assert (await client.ask("GET", path + UNKNOWN))[0] == 404
        assert (await client.ask("GET", f"/rheed/images/{data_id}/frames/0"))[0] == 404


async def everything(client: WireClient) -> list[object]:
    """The whole catalogue, except times of changes."""
    paths = ("/physical_samples/", "/tags/", "/projects/", "/data_entries/")
    lists = [(await client.ask("GET", path))[1] for path in paths]
    return [[{**row, "last_updated": None} for row in rows] for rows in lists]


@pytest.mark.parametrize("loss", ["nothing", "catalogue", "damaged", "journal too"])
async def test_catalogue_is_rebuilt_from_the_files(serve: Serve, loss: str) -> None:
    """``reindex`` rebuilds samples, tags, projects, streams and links from the files, with their ids."""
    server = await serve()
    async with WireClient(server) as client:
        ids = await add_streams(client)
        _, project = await client.ask("POST", "/projects/", {"name": "Nitrides"})
        sample = (await client.ask("GET", "/physical_samples/"))[1][0]["id"]
        in_project = await client.create("in project", project_id=project["id"])
        link = {"data_ids": [in_project], "physical_sample_id": sample}
        await client.ask("POST", "/data_entries/physical_sample", link)
        if loss != "journal too":  # only the log contains which project tracks which sample
            path = f"/projects/{project['id']}/configuration/tracking_samples"
            await client.ask("POST", path, {"physical_sample_id": sample})
        before = await everything(client)
    await server.stop()
    for path in server.data_dir.glob("catalogue.sqlite*"):
        if loss == "damaged":
            path.write_bytes(b"not a database" * 100)
        elif loss != "nothing":
            path.unlink()
    if loss == "journal too":
        (server.data_dir / "names.jsonl").unlink()
        before[0] = [{**row, "created_datetime": None} for row in before[0]]  # type: ignore[attr-defined]
    report = await reindex(server.data_dir)
    assert (report.streams, report.samples, report.tags, report.projects) == (len(ids) + 1, 1, 1, 1)
    await server.start()
    async with WireClient(server) as client:
        after = await everything(client)
    if loss == "journal too":
        after[0] = [{**row, "created_datetime": None} for row in after[0]]  # type: ignore[attr-defined]
    assert after == before


async def test_a_start_catches_up_with_the_files(serve: Serve) -> None:
    """A start adds streams that were copied in and removes those that were deleted, without a command."""
    one, other = await serve(), await serve()
    async with WireClient(one) as client:
        ids = await add_streams(client)
    await one.stop()
    await other.stop()
    shutil.move(one.folder(ids["short"]), other.folder(ids["short"]))
    await one.start()
    await other.start()
    async with WireClient(one) as here, WireClient(other) as there:
        assert [e["raw_name"] for e in (await here.ask("GET", "/data_entries/"))[1]] == ["long"]
        entry = await there.entry(ids["short"])
    assert (entry["pipeline_status"], entry["physical_sample_name"]) == ("success", "Wafer-A1")


async def test_torn_log_line_is_skipped(serve: Serve) -> None:
    """A log line cut by a crash is the only one lost, and the next one is complete."""
    server = await serve()
    async with WireClient(server) as client:
        await client.ask("POST", "/tags/", {"name": "first"})
        journal = server.data_dir / "names.jsonl"
        journal.write_bytes(journal.read_bytes() + b'{"type": "tag", "id": "x", "na')
        await client.ask("POST", "/tags/", {"name": "second"})
    await server.stop()
    await reindex(server.data_dir)
    await server.start()
    async with WireClient(server) as client:
        assert [tag["name"] for tag in (await client.ask("GET", "/tags/"))[1]] == ["first", "second"]


async def test_names_that_became_the_same_are_both_kept(serve: Serve) -> None:
    """Two samples whose names an earlier version treated as different both exist after the update."""
    server = await serve()
    await server.stop()
    names = {
        "1db5c30e-a4e7-4404-bbce-e2c3e2c819bc": "ᾯ\u0327",
        "2db5c30e-a4e7-4404-bbce-e2c3e2c819bc": "ὧ\u0327ι",
    }
    records = [
        {"type": "sample", "id": one, "name": names[one], "made": f"2026-11-0{one[0]}"} for one in names
    ]
    (server.data_dir / "names.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    with closing(sqlite3.connect(server.data_dir / "catalogue.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 1")
    await server.start()
    async with WireClient(server) as client:
        _, samples = await client.ask("GET", "/physical_samples/")
    assert [(one["id"][0], one["name"]) for one in samples] == [
        ("1", "ᾯ\u0327"),
        ("2", "ὧ\u0327ι (2db5c30e)"),
    ]


async def test_one_server_owns_a_folder(serve: Serve) -> None:
    """A second server, or a reindex, on a folder in use is refused; afterwards the folder is free."""
    server = await serve()
    with pytest.raises(ConfigError, match="Another atomstream server"):
        await serve(data_dir=server.data_dir)
    with pytest.raises(ConfigError, match="Another atomstream server"):
        await reindex(server.data_dir)
    await server.stop()
    assert (await reindex(server.data_dir)).streams == 0


async def test_reindex_of_another_folder_is_an_error(tmp_path: object) -> None:
    """For a folder that is not a server's, the error names it, and nothing is created in it."""
    with pytest.raises(ConfigError, match="not the data folder"):
        await reindex(tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]


@given(st.text(max_size=40))
def test_normalized_names_are_stable(name: str) -> None:
    """Normalizing twice changes nothing; outer blanks and Unicode's normal forms do not matter."""
    import unicodedata

    key = normalized_name(name)
    assert normalized_name(key) == key
    assert normalized_name(f" {name}\t") == key
    assert normalized_name(unicodedata.normalize("NFD", name)) == key
