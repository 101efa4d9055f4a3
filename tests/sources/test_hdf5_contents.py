from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source
from tests.sources.file_table import COLOUR, DEEP, GREY, hdf5, zarr_group
from tests.sources.source_files import read

h5py = pytest.importorskip("h5py")


def test_links_to_other_files(tmp_path: Path) -> None:
    """A main file of a detector, whose frames are in another file: found, with axes and times beside the link."""
    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "part.h5", "w") as file:
        file["entry/stack"] = DEEP
    with h5py.File(tmp_path / "main.h5", "w") as file:
        group = file.create_group("entry/run")
        group.attrs["signal"] = "counts"
        group.attrs["axes"] = ["time", "y", "x"]
        group["counts"] = h5py.ExternalLink("data/part.h5", "/entry/stack")
        group["time"] = [0.0, 40.0, 90.0]
        group["time"].attrs["units"] = "ms"
    source = open_source(tmp_path / "main.h5")
    np.testing.assert_array_equal(read(source), DEEP)
    (chunk,) = source.chunks(3)
    np.testing.assert_allclose(chunk.times_s, [0, 0.04, 0.09])
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["a"] = h5py.ExternalLink("data/part.h5", "/entry/stack")
        file["same"] = h5py.SoftLink("/a")
    np.testing.assert_array_equal(read(open_source(tmp_path / "plain.h5")), DEEP)


def test_a_link_to_a_missing_file_is_named(tmp_path: Path) -> None:
    """If the linked file is missing, the message names the link and the file."""
    with h5py.File(tmp_path / "main.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("gone.h5", "/stack")
    with pytest.raises(ConfigError, match=r"links in it lead to nothing: frames to /stack of gone\.h5"):
        open_source(tmp_path / "main.h5")


def test_places_that_no_file_of_a_virtual_dataset_holds(tmp_path: Path) -> None:
    """HDF5 gives zeros for them: they are missing frames, also where only a part of a frame is held."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["data"] = DEEP[:2]
    layout = h5py.VirtualLayout((4, 24, 32), np.uint16)
    layout[0:1] = h5py.VirtualSource("part.h5", "data", (2, 24, 32))[0:1]
    layout[1:2, :10] = h5py.VirtualSource("part.h5", "data", (2, 24, 32))[1:2, :10]
    layout[2:3, 10:] = h5py.VirtualSource("part.h5", "data", (2, 24, 32))[1:2, 10:]
    layout[2:3, :10] = h5py.VirtualSource("part.h5", "data", (2, 24, 32))[1:2, :10]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    source = open_source(tmp_path / "a.h5", skip_damaged=True)
    frames = np.concatenate([chunk.frames for chunk in source.chunks(4)])
    np.testing.assert_array_equal(frames, DEEP[:2])
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(1, 1), (3, 1)]


def test_what_image_attributes_state(tmp_path: Path) -> None:
    """The image specification of HDF5: 0 is white, indices of a palette, true colours."""
    image = {"CLASS": np.bytes_("IMAGE"), "IMAGE_WHITE_IS_ZERO": np.uint8(1)}
    np.testing.assert_array_equal(read(open_source(hdf5({"a": (255 - GREY, image)})(tmp_path))), GREY)
    ramp = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["colours"] = ramp
        file["a"] = GREY
        file["a"].attrs.update({"CLASS": np.bytes_("IMAGE"), "IMAGE_SUBCLASS": np.bytes_("IMAGE_INDEXED")})
        file["a"].attrs["PALETTE"] = file["colours"].ref
    np.testing.assert_array_equal(read(open_source(tmp_path / "p.h5")), 255 - GREY)
    colours = {"CLASS": np.bytes_("IMAGE"), "IMAGE_SUBCLASS": np.bytes_("IMAGE_TRUECOLOR")}
    with pytest.raises(ConfigError, match="luma, r, g or b"):
        read(open_source(hdf5({"a": (COLOUR, colours)})(tmp_path), axes="NYXC"))


def test_axes_of_other_programs(tmp_path: Path) -> None:
    """NetCDF names axes by scales; MATLAB reverses them, and is refused until they are stated."""
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["cam"] = np.transpose(DEEP, (2, 1, 0))
        for axis, (name, length) in enumerate({"x": 32, "y": 24, "time": 3}.items()):
            file[name] = np.arange(length) * 0.1
            file[name].make_scale(name)
            file["cam"].dims[axis].attach_scale(file[name])
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.nc")), DEEP)
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["frames"] = np.transpose(DEEP, (0, 2, 1))
        file["frames"].attrs["MATLAB_class"] = np.bytes_("uint16")
    with pytest.raises(ConfigError, match=r"written by MATLAB.*NXY"):
        open_source(tmp_path / "a.mat")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.mat", axes="NXY")), DEEP)


def test_records_are_no_frames(tmp_path: Path) -> None:
    """An array of records is refused as such, and not as missing."""
    with pytest.raises(ConfigError, match=r"\[frames\] holds .* pixels, which are not a brightness"):
        open_source(hdf5({"frames": (np.zeros((3, 9, 9), [("r", "u1"), ("g", "u1")]), {})})(tmp_path))


@pytest.mark.parametrize("text", ["y:x:time", "[y, x, time]", "y,x,time"])
def test_axes_as_before_2014(tmp_path: Path, text: str) -> None:
    """The signal of older NeXus files names its axes in one text; the first one need not count the frames."""
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/run")
        group["data"] = np.moveaxis(DEEP, 0, 2)
        group["data"].attrs.update({"signal": 1, "axes": text})
        group["time"] = [0.0, 40.0, 90.0]
        group["time"].attrs["units"] = "ms"
    source = open_source(tmp_path / "a.nxs")
    np.testing.assert_array_equal(read(source), DEEP)
    (chunk,) = source.chunks(3)
    np.testing.assert_allclose(chunk.times_s, [0, 0.04, 0.09])


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(hdf5({"frames": (DEEP, {"scale_factor": 0.5})}), id="CF in HDF5"),
        pytest.param(hdf5({"frames": (DEEP, {"add_offset": -7.0})}), id="an offset"),
        pytest.param(
            hdf5({"frames": (DEEP, {}), "frames_scaling_factor": (np.float64(0.5), {})}), id="NeXus"
        ),
        pytest.param(zarr_group({"frames": (DEEP, {"scale_factor": -1.0})}), id="CF in Zarr"),
    ],
)
def test_values_that_are_stored_as_other_numbers(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    """Numbers that a factor or an offset turns into values are refused; ``raw`` streams them as they are stored."""
    path = write(tmp_path)
    with pytest.raises(ConfigError, match=r"follow from them .*--channel raw"):
        open_source(path)
    np.testing.assert_array_equal(read(open_source(path, channel="raw")), DEEP)


def test_a_factor_without_an_effect(tmp_path: Path) -> None:
    """A factor of 1 and an offset of 0 change nothing."""
    path = hdf5({"frames": (DEEP, {"scale_factor": 1.0, "add_offset": np.zeros(1)})})(tmp_path)
    np.testing.assert_array_equal(read(open_source(path)), DEEP)
