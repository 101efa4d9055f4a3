from __future__ import annotations

import json
from typing import Final

from tests.scripts import run_python

HEAVY: Final = ["pandas", "xarray", "scipy", "zarr", "av", "tifffile", "sqlalchemy", "msgspec", "tqdm"]
LOADED: Final = "import json, sys; print(json.dumps([name for name in {names} if name in sys.modules]))"


def loaded_after(statement: str, names: list[str]) -> list[str]:
    done = run_python("-c", f"{statement}\n{LOADED.format(names=names)}")
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_package_alone_loads_nothing() -> None:
    """``import atomstream`` imports no other library; the streamers are imported at their first use."""
    assert loaded_after("import atomstream", ["numpy", "aiohttp", "anyio", "zstandard", *HEAVY]) == []


def test_the_client_loads_nothing_that_only_others_need() -> None:
    """The streamers load neither the server's packages nor pandas, xarray, scipy or a video decoder."""
    assert loaded_after("from atomstream import RHEEDStreamer, AsyncRHEEDStreamer", HEAVY) == []
    assert loaded_after("from atomstream import RHEEDStreamer", ["numpy"]) == ["numpy"]


def test_the_http_library_comes_with_a_streamer() -> None:
    """aiohttp is half of the import time: it is imported when the first streamer is made, not before."""
    assert loaded_after("from atomstream import RHEEDStreamer", ["aiohttp"]) == []
    made = "from atomstream import AsyncRHEEDStreamer as S; S('key', 'http://127.0.0.1:9')"
    assert loaded_after(made, ["aiohttp"]) == ["aiohttp"]


def test_the_server_leaves_scipy_to_its_workers() -> None:
    """The analysis runs in worker processes: the server itself starts without scipy, which takes a second."""
    assert loaded_after("import atomstream.server.runner, atomstream.server.app", ["scipy"]) == []
    assert loaded_after("from atomstream.analysis import Analyzer", ["scipy"]) == ["scipy"]


def test_a_server_on_one_computer_loads_nothing_of_a_cluster() -> None:
    """The clients of NATS, S3 and PostgreSQL are imported only where their services are used."""
    started = "import atomstream.server.runner, atomstream.server.app"
    assert loaded_after(started, ["nats", "obstore", "asyncpg", "alembic"]) == []
