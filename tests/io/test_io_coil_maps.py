"""Coil maps in HDF5 files, and files that hold none."""

import h5py
import ismrmrd
import numpy as np
import pytest

from hggdp_plugin import io

PAIR = np.dtype([("real", "<f4"), ("imag", "<f4")])


def complex_array(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


@pytest.fixture
def h5(tmp_path):
    def write(**arrays):
        with h5py.File(tmp_path / "maps.h5", "w") as file:
            for name, array in arrays.items():
                file[name.replace("__", "/")] = array
        return tmp_path / "maps.h5"

    return write


@pytest.mark.parametrize("shape", [(4, 8, 6), (3, 4, 8, 6)])
@pytest.mark.parametrize("dtype", ["complex64", "complex128", "pair"])
def test_the_one_complex_array_in_a_file(h5, shape, dtype):
    maps = complex_array(*shape)
    stored = maps.view(PAIR) if dtype == "pair" else maps.astype(dtype)
    path = h5(calibration__maps=stored, mask=np.ones((8, 6)), phantom=complex_array(8, 6))
    read = io.read_maps(path)
    assert read.dtype == np.complex64
    np.testing.assert_array_equal(read, maps.reshape(-1, 4, 8, 6))


def test_sets_of_maps_are_an_axis_before_the_coils(h5):
    maps = complex_array(3, 2, 4, 8, 6)
    np.testing.assert_array_equal(io.read_maps(h5(maps=maps), maps=2), maps)
    np.testing.assert_array_equal(io.read_maps(h5(maps=maps[0]), maps=2), maps[:1])
    with pytest.raises(io.InputError, match="no maps"):
        io.read_maps(h5(maps=maps[0, 0]), maps=2)
    with pytest.raises(io.InputError, match="no maps"):
        io.read_maps(h5(series__data=maps), maps=2)


def write_series(path, volumes, slices):
    """An ISMRMRD image series by the ismrmrd package: volumes (n, coils, z, y, x)."""
    with ismrmrd.Dataset(str(path)) as file:
        for data, index in zip(volumes, slices, strict=True):
            file.append_image("maps_1", ismrmrd.Image.from_array(data, transpose=False, slice=index))
    return path


def test_an_ismrmrd_series_with_the_coils_as_channels(tmp_path):
    maps = complex_array(3, 4, 1, 8, 6)
    path = write_series(tmp_path / "maps.h5", maps[[2, 0, 1]], [2, 0, 1])
    np.testing.assert_array_equal(io.read_maps(path), maps[:, :, 0])


def test_an_ismrmrd_volume_is_cut_across_the_readout(tmp_path):
    maps = complex_array(1, 4, 5, 8, 6)
    path = write_series(tmp_path / "maps.h5", maps, [0])
    np.testing.assert_array_equal(io.read_maps(path, slice_axis="x"), np.moveaxis(maps[0], -1, 0))
    with pytest.raises(io.InputError, match="5 partitions"):
        io.read_maps(path)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "no maps"),
        ({"maps": np.ones((4, 8, 6))}, "no maps"),
        ({"maps": complex_array(8, 6)}, "no maps"),
        ({"maps": complex_array(2, 2, 4, 8, 6)}, "no maps"),
        ({"maps": np.zeros((0, 8, 6), complex)}, "no maps"),
        ({"maps": complex_array(4, 8, 6), "images": complex_array(4, 8, 6)}, "several complex arrays: images, maps"),
        ({"maps": complex_array(4, 8, 6) * np.nan}, "finite"),
        ({"maps": complex_array(4, 8, 6) * 1e20}, "too large"),
        ({"maps": 0 * complex_array(4, 8, 6)}, "all maps are zero"),
        ({"a__data": complex_array(2, 4, 1, 8, 6)}, "readable"),
        (
            {"a__data": complex_array(2, 4, 1, 8, 6), "a__header": np.zeros(2, [("slice", "u2")])},
            "2 images of 1 slices",
        ),
    ],
)
def test_files_without_maps(h5, arrays, says):
    with pytest.raises(io.InputError, match=says) as error:
        io.read_maps(h5(**arrays))
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "maps.h5"
    with pytest.raises(io.InputError, match="no such file"):
        io.read_maps(path)
    path.write_text("text")
    with pytest.raises(io.InputError, match="not an HDF5 file"):
        io.read_maps(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("maps", (1000, 10000, 10000), np.complex64)
    with pytest.raises(io.InputError, match="too large for the file"):
        io.read_maps(path)
