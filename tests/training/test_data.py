"""Training images: what is read, what is drawn from them, what is refused."""

import copy

import h5py
import numpy as np
import pytest
import torch

from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.training.data import Augmentation, BatchSource, load_images

OFF = {"flip": False, "phase": False, "smooth_phase": 0.0, "intensity": 1.0, "shading": 0.0, "zoom": 1.0}


def complex_array(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def as_complex(x: torch.Tensor) -> np.ndarray:
    return (x[..., 0, :, :] + 1j * x[..., 1, :, :]).numpy()


def draw(images, crop=16, n=6, seed=0, **augmentation):
    source = BatchSource(
        [torch.from_numpy(np.stack([i.real, i.imag])) for i in images], crop, Augmentation(**augmentation)
    )
    return as_complex(source.draw(n, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("suffix", [".npy", ".cfl", ".h5"])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_images_of_every_format_have_maximum_one(suffix, dtype, tmp_path):
    array, path = complex_array(2, 3, 8, 9).astype(dtype), tmp_path / f"images{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".cfl":
        write_cfl(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["image"] = array
    images = load_images([path])
    assert len(images) == 6
    assert all(image.dtype == torch.float32 for image in images)
    for image, expected in zip(images, array.reshape(6, 8, 9), strict=True):
        np.testing.assert_allclose(as_complex(image), expected / abs(expected).max(), rtol=1e-5, atol=1e-6)


def test_integers_with_a_step(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["image"] = np.random.default_rng(0).integers(-99, 99, (3, 2, 8, 8), dtype=np.int16)
        file["image"].attrs["step"] = 0.01
        integers = file["image"][()]
    images = load_images([tmp_path])
    expected = integers[1, 0] + 1j * integers[1, 1]
    np.testing.assert_allclose(as_complex(images[1]), expected / abs(expected).max(), rtol=1e-5)


def test_a_folder_is_all_its_files_and_empty_slices_are_left_out(tmp_path):
    (tmp_path / "deep").mkdir()
    np.save(tmp_path / "b.npy", complex_array(2, 8, 8))
    np.save(tmp_path / "deep" / "a.npy", np.stack([0 * complex_array(8, 8), complex_array(8, 8)]))
    (tmp_path / "notes.txt").write_text("nothing to see")
    assert len(load_images([tmp_path])) == 3


def write_bad(path, kind):
    if kind == "missing":
        return
    if kind == "text":
        path.write_text("hello\nworld")
    elif kind == "empty folder":
        path.mkdir()
    elif path.suffix == ".npy":
        np.save(
            path,
            {
                "real": np.ones((8, 8)),
                "nan": np.full((8, 8), np.nan + 0j),
                "zeros": np.zeros((8, 8), complex),
                "line": np.ones((8, 1), complex),
            }[kind],
        )
    else:
        with h5py.File(path, "w") as file:
            if kind == "group":
                file.create_group("image")
            elif kind == "integers without a step":
                file["image"] = np.ones((2, 2, 8, 8), np.int16)
            else:
                file["other"] = np.ones(3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.npy", "missing"),
        ("a.h5", "missing"),
        ("a.npy", "text"),
        ("a.h5", "text"),
        ("a.txt", "text"),
        ("a", "empty folder"),
        ("a.npy", "real"),
        ("a.npy", "nan"),
        ("a.npy", "zeros"),
        ("a.npy", "line"),
        ("a.h5", "no image"),
        ("a.h5", "group"),
        ("a.h5", "integers without a step"),
    ],
)
def test_unusable_data_are_refused_in_one_line(name, kind, tmp_path):
    write_bad(tmp_path / name, kind)
    with pytest.raises(ValueError, match=name) as error:
        load_images([tmp_path / name])
    assert "\n" not in str(error.value)


def test_a_batch_follows_from_the_generator():
    images = [complex_array(20, 24, seed=i) for i in range(4)]
    first = draw(images, seed=3)
    assert first.shape == (6, 16, 16)
    np.testing.assert_array_equal(draw(images, seed=3), first)
    assert (draw(images, seed=4) != first).any()


def test_without_augmentation_a_crop_is_a_part_of_an_image():
    images = [complex_array(20, 24, seed=i) for i in range(2)]
    windows = np.stack([np.lib.stride_tricks.sliding_window_view(i, (16, 16)) for i in images]).reshape(-1, 16, 16)
    for crop in draw(images, **OFF):
        assert (windows == crop).all(axis=(1, 2)).any()


ONE = [complex_array(16, 16)]


def test_turns_keep_the_pixels():
    turned = draw(ONE, n=40, **OFF | {"flip": True})
    eight = {
        np.ascontiguousarray(t).tobytes() for k in range(4) for t in (np.rot90(ONE[0], k), np.rot90(ONE[0], k)[:, ::-1])
    }
    assert {np.ascontiguousarray(t).tobytes() for t in turned} == eight


def test_phases_keep_the_magnitude():
    for options, smooth in (({"phase": True}, False), ({"smooth_phase": 2.0}, True)):
        drawn = draw(ONE, n=20, **OFF | options)
        np.testing.assert_allclose(abs(drawn), np.tile(abs(ONE[0]), (20, 1, 1)), rtol=1e-5)
        angle = np.angle(drawn / ONE[0])
        assert (angle.std(axis=(1, 2)) > 0.1).any() == smooth
        assert abs(angle).max() > 0.1


def test_intensity_and_shading_keep_the_phase():
    for options, bound, varies in (({"intensity": 1.25}, 1.25, False), ({"shading": 0.3}, 1.3, True)):
        ratio = draw(ONE, n=20, **OFF | options) / ONE[0]
        np.testing.assert_allclose(ratio.imag, 0, atol=1e-5)
        assert ratio.real.max() <= bound * (1 + 1e-5)
        assert ratio.real.min() >= 2 - bound - 1e-5
        assert (ratio.real.std(axis=(1, 2)) > 1e-3).any() == varies


def test_zoom_keeps_a_smooth_image_smooth():
    y, x = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij")
    image = (np.exp(-4 * (x**2 + y**2)) * (1 + 1j)).astype(np.complex64)
    drawn = draw([image], crop=32, n=20, **OFF | {"zoom": 1.25})
    differs = abs(drawn - image).max(axis=(1, 2))
    assert (differs == 0).any()
    assert 0.02 < differs.max() < 0.5
    widths = (abs(drawn) > 0.5 * abs(image).max()).sum(axis=(1, 2)) / (abs(image) > 0.5 * abs(image).max()).sum()
    assert 0.6 < widths.min() < 0.9
    assert 1.1 < widths.max() < 1.65


@pytest.mark.parametrize("shape", [(3, 40), (7, 5), (16, 2)])
def test_small_images_are_reflected(shape):
    drawn = draw([complex_array(*shape)], n=2, **OFF)
    assert drawn.shape == (2, 16, 16)
    assert (abs(drawn) > 0).all()


def test_copies_of_the_training_module_share_the_images():
    source = BatchSource([torch.zeros(2, 16, 16)], 16)
    assert copy.deepcopy(source) is source
