"""A program of a user of the hosted service's client that reads results: search, get, series, azimuths, polling.

It runs with the client's own Python and is never imported by a test. It writes one JSON line per answer.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def print_frame(ask: str, table: Any, **facts: object) -> None:
    """Print one JSON line: rows, columns and last row of a DataFrame."""
    flat = table.reset_index()
    last = {str(name): value for name, value in flat.iloc[-1].to_dict().items()} if len(flat) else {}
    line = {"ask": ask, "rows": len(flat), "columns": sorted(map(str, flat.columns)), "last": last, **facts}
    sys.stdout.write(json.dumps(line, default=str) + "\n")


def main() -> None:
    """``peer_reader.py URL KEY DATA_ID KEYWORD PROJECT_ID FOLDER``."""
    url, key, data_id, keyword, project_id = sys.argv[1:6]
    from atomscale import Client
    from atomscale.timeseries.polling import iter_poll

    client = Client(api_key=key, endpoint=url)
    print_frame("search", client.search(keywords=[keyword]))
    (result,) = client.get(data_id)
    print_frame("get", result.timeseries_data, kind=type(result).__name__, data_id=str(result.data_id))
    print_frame("series", client.get_rheed_timeseries(data_id, last_n=10, include_low_level_features=True))
    for table in iter_poll(client, data_id, interval=0.1, last_n=5, max_polls=2):
        print_frame("poll", table)
    print_frame("azimuths", client.get_rheed_azimuths(data_id))
    client.set_rheed_azimuth(data_id, "[110]")
    print_frame("azimuths set", client.get_rheed_azimuths(data_id))
    print_frame("changepoints", client.get_changepoints(data_id))
    found = client.get_project(project_id)
    (sample,) = found.samples
    names = {"name": sample.physical_sample_name, "results": len(sample.data_results)}
    print_frame("project", client.get_physical_sample_timeseries(sample.physical_sample_id), **names)
    number = client.create_growth_instrument(label="Main MBE", name="Veeco GEN10", instrument_type="mbe")
    found_instruments = client.list_growth_instruments()
    client.delete_growth_instrument(number)
    left = client.list_growth_instruments()
    print_frame("instruments", client.list_projects(), found=found_instruments, left=left)
    frame = client.get_frame(data_id)
    client.download(data_id, dest_dir=sys.argv[6], data_type="raw")
    client.download(data_id, dest_dir=sys.argv[6])
    steps = client.get_process_steps(sample.physical_sample_id)
    print_frame("files", steps, frame=type(frame).__name__, size=frame.processed_image.size)
    print_frame("places", client.get_spatial_annotations(sample.physical_sample_id))


if __name__ == "__main__":
    main()
