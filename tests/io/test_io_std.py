"""The standard error of an image, written beside it in every format."""

import h5py
import numpy as np
import pytest

from hggdp_plugin import io
from hggdp_plugin.io.files import std_path
from hggdp_plugin.io.mrd.images import read_series

SHAPE = (1, 1, 1, 1, 3, 24, 20)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    """An image and its standard error."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)
    return image.astype(np.complex64), rng.random(SHAPE).astype(np.float32)


def test_names() -> None:
    assert std_path("a/b.nii.gz") == "a/b_std.nii.gz"
    assert std_path("b.npy") == "b_std.npy"
    assert std_path("dicom/") == "dicom_std/"
    assert std_path("b.h5") == "b.h5"


@pytest.mark.parametrize("suffix", [".npy", ".cfl", ".nii.gz"])
def test_a_file_of_its_own(tmp_path, pair, suffix: str) -> None:
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel")
    image, std = pair
    path = tmp_path / f"image{suffix}"
    io.write_image(path, image, std=std, complex_=True)
    np.testing.assert_array_equal(io.read_images(path), image)
    np.testing.assert_array_equal(io.read_images(tmp_path / f"image_std{suffix}").real, std)


def test_the_second_series_of_an_mrd_file(tmp_path, pair) -> None:
    image, std = pair
    io.write_image(tmp_path / "image.h5", image, std=std)
    np.testing.assert_array_equal(io.read_images(tmp_path / "image.h5"), abs(image))
    with h5py.File(tmp_path / "image.h5") as file:
        series = file["dataset/image_1"]
        np.testing.assert_array_equal(read_series(series, ("slice",))[:, 0, 0], std[0, 0, 0, 0])
        assert set(series["header"]["image_series_index"]) == {1}
        assert b"Standard error" in series["attributes"][0]
        assert b"Standard error" not in file["dataset/image_0/attributes"][0]


def test_a_picture_in_colors_with_a_bar(tmp_path, pair) -> None:
    from matplotlib.image import imread

    image, std = pair
    io.write_image(tmp_path / "image.png", image, std=std)
    picture = imread(tmp_path / "image_std.png")
    assert picture.shape[:2] == (2 * 24, 2 * 20 + 110)  # 3 slices in two rows, and the bar
    assert np.ptp(picture[..., :3], axis=-1).max() > 0.3  # colors


def test_another_shape_is_refused(tmp_path, pair) -> None:
    image, std = pair
    with pytest.raises(ValueError, match="std must have the shape"):
        io.write_image(tmp_path / "image.npy", image, std=std[..., 1:])
    assert not list(tmp_path.iterdir())
