from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing path is named in the error."""
    with pytest.raises(ConfigError, match=r"nowhere\.npy does not exist"):
        open_source(tmp_path / "nowhere.npy")


def test_an_unknown_type_lists_the_known_ones(tmp_path: Path) -> None:
    """An unknown extension gives an error with the known ones."""
    (tmp_path / "a.cine").write_bytes(b"CI")
    with pytest.raises(ConfigError, match=r"a\.cine has an unknown type; .*\.npy.*\.tif.*Zarr.*--geometry"):
        open_source(tmp_path / "a.cine")


@pytest.mark.parametrize(
    "suffix", ["npy", "npz", "tif", "png", "avi", "h264", "h5", "seq", "raw", "zarr.zip"]
)
def test_an_empty_file_is_called_empty(tmp_path: Path, suffix: str) -> None:
    """Whatever reads it: no advice about its type, and no option that could not help."""
    path = tmp_path / f"a.{suffix}"
    path.touch()
    with pytest.raises(ConfigError, match=rf"a\.{suffix} can't be read: the file is empty$"):
        open_source(path)


@pytest.mark.parametrize("name", ["a.npy.gz", "a.tif.GZ", "a.zip", "a.tar.xz", "a.7z"])
def test_a_packed_file_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    """A file that is packed as a whole is refused with the program that unpacks it."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"is packed as a whole.*unpack it first"):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 5), np.int32), r"int32 pixels.*--levels LOW HIGH"),
        (np.zeros((2, 4, 5), np.float32), r"float32 pixels.*--levels LOW HIGH"),
        (np.zeros((2, 4, 5), bool), "1-bit pixels.*--levels 0 1"),
        (np.zeros((2, 4, 5, 3), np.uint8), "colour frames"),
        (np.zeros((2, 4, 5, 6), np.uint8), r"shape \(2, 4, 5, 6\)"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (np.zeros((0, 4, 5), np.uint8), "empty"),
        (np.zeros((3, 0, 5), np.uint8), "empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_without_frames(tmp_path: Path, array: npt.NDArray[Any], message: str, suffix: str) -> None:
    """Wrong dtype, colour, wrong shape and empty stacks give an error that names what to do."""
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        np.savez(path, frames=array)
    with pytest.raises(ConfigError, match=message):
        open_source(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"\x93NUMPY\x01\x00", b"PK\x03\x04 torn", b"text"])
def test_damaged_arrays_raise_config_error(tmp_path: Path, name: str, content: bytes) -> None:
    """A damaged file raises ConfigError, whatever numpy raised."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="can't be read as"):
        open_source(tmp_path / name)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    """An object array, which would run code when loaded, is refused."""
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="can't be read as"):
        open_source(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("package", "name", "install"),
    [
        ("av", "a.mp4", "video"),
        ("av", "a.png", "video"),
        ("tifffile", "a.tif", "video"),
        ("zarr", "a.zarr", "server"),
    ],
)
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, install: str
) -> None:
    """Without the optional package the error contains the pip command."""
    if name == "a.zarr":
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text("{}")
    else:
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package '{package}'.*atomstream\[{install}\]"):
        open_source(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.mp4", "a.png"])
def test_a_dataset_only_where_there_are_several(tmp_path: Path, name: str) -> None:
    """A dataset for a file with a single sequence raises ConfigError."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match="omit the dataset 'frames'"):
        open_source(tmp_path / name, dataset="frames")


def test_importing_sources_imports_nothing_heavy() -> None:
    """`import atomstream.sources` loads no video, TIFF, Zarr or scipy package."""
    code = (
        "import sys, atomstream.sources; "
        "print(sorted({'av', 'tifffile', 'zarr', 'scipy', 'PIL', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
