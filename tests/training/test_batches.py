"""Augmented batches: what is drawn from the images."""

import copy

import numpy as np
import pytest
import torch

from hggdp_plugin.training.augmentation import with_phase
from hggdp_plugin.training.batches import BatchSource, Domain
from hggdp_plugin.training.config import OFF, Augmentation


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


def test_a_crop_lies_anywhere_in_images_of_different_sizes():
    images = [complex_array(16, 17, seed=1), complex_array(18, 16, seed=2)]
    drawn = {crop.tobytes() for crop in draw(images, n=300, **OFF)}
    windows = [np.lib.stride_tricks.sliding_window_view(i, (16, 16)).reshape(-1, 16, 16) for i in images]
    assert drawn == {window.tobytes() for window in np.concatenate(windows)}


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


def whole(images, seed=0, **augmentation):
    source = BatchSource(
        [torch.from_numpy(np.stack([i.real, i.imag])) for i in images], 16, Augmentation(**OFF | augmentation)
    )
    return as_complex(source.whole(torch.Generator().manual_seed(seed)))[0]


def test_whole_images_are_drawn_in_every_orientation():
    images = [complex_array(20, 24, seed=i) for i in range(2)]
    eight = {turned.tobytes() for i in images for t in (i, i.T) for turned in (t, t[::-1], t[:, ::-1], t[::-1, ::-1])}
    assert {whole(images, seed).tobytes() for seed in range(20)} == {i.tobytes() for i in images}
    drawn = [whole(images, seed, flip=True) for seed in range(200)]
    assert {d.shape for d in drawn} == {(20, 24), (24, 20)}
    assert {np.ascontiguousarray(d).tobytes() for d in drawn} == eight


@pytest.mark.parametrize("options", [{"phase": True}, {"smooth_phase": 1.0}, {"shading": 0.3}, {"zoom": 1.25}])
def test_whole_images_are_augmented_and_the_source_is_not(options):
    images = [complex_array(20, 24)]
    source = BatchSource(
        [torch.from_numpy(np.stack([i.real, i.imag])) for i in images], 16, Augmentation(**OFF | options)
    )
    before = source.pixels.clone()
    drawn = [as_complex(source.whole(torch.Generator().manual_seed(seed)))[0] for seed in range(8)]
    assert any((abs(d - images[0]) > 1e-3).any() for d in drawn)
    torch.testing.assert_close(source.pixels, before, rtol=0, atol=0)


def constant(value, *shape):
    return torch.stack([torch.full(shape, float(value)), torch.ones(shape)])


def test_domains_are_drawn_by_weight_and_their_images_equally():
    domains = [
        Domain("a", (constant(0, 16, 16),), 3.0),
        Domain("b", tuple(constant(i, 16 + i, 20) for i in range(1, 5))),
        Domain("none", (constant(9, 16, 16),), 0.0),
    ]
    source = BatchSource(domains, 16, Augmentation(**OFF))
    drawn = source.draw(4000, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4]
    expected = torch.tensor([0.75, *[0.0625] * 4]) * 4000
    assert ((counts - expected).abs() < 5 * (expected * (1 - expected / 4000)).sqrt()).all()
    generator = torch.Generator().manual_seed(1)
    whole = torch.stack([source.whole(generator)[0, 0, 0, 0] for _ in range(400)])
    assert abs(int((whole == 0).sum()) - 300) < 5 * 75**0.5


def test_magnitude_images_get_a_smooth_phase_and_complex_ones_do_not():
    magnitude = 0.5 + 0.5 * torch.rand(24, 24, generator=torch.Generator().manual_seed(0))
    images = [torch.stack([magnitude, torch.zeros(24, 24)]), torch.stack([2 + magnitude, 1e-3 * magnitude])]
    source = BatchSource(images, 24, Augmentation(**OFF | {"magnitude_phase": 2.0}))
    drawn = as_complex(source.draw(40, torch.Generator().manual_seed(0)))
    phased = abs(drawn).max(axis=(1, 2)) < 1.5
    assert 5 < phased.sum() < 35
    np.testing.assert_allclose(abs(drawn[phased]), np.tile(magnitude, (phased.sum(), 1, 1)), rtol=1e-5)
    angle = np.angle(drawn[phased])
    assert (angle.std(axis=(1, 2)) > 1e-3).all()
    assert abs(angle).max() <= 2.0
    assert abs(np.diff(angle, axis=1)).max() < 0.5  # smooth
    np.testing.assert_array_equal(drawn[~phased], np.tile(as_complex(images[1]), ((~phased).sum(), 1, 1)))


def test_magnitude_images_to_measure_on_always_get_the_same_phase():
    magnitude = torch.rand(20, 24, generator=torch.Generator().manual_seed(0))
    images = [torch.stack([magnitude, torch.zeros(20, 24)]), torch.ones(2, 8, 8)]
    phased = with_phase(images)
    torch.testing.assert_close(phased[0].norm(dim=0), magnitude)
    assert phased[0][1].any()
    assert phased[1] is images[1]
    torch.testing.assert_close(with_phase(images)[0], phased[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["monotone_remap", "nonmonotone_remap"])
def test_remaps_keep_the_phase_and_the_order_of_equal_values(name):
    image = ONE[0] / abs(ONE[0]).max()
    drawn = draw([image], n=20, **OFF | {name: 0.5})
    np.testing.assert_allclose(np.angle(drawn / image), 0, atol=1e-3)
    changed = (abs(drawn - image) > 1e-4).any(axis=(1, 2))
    assert 3 < changed.sum() < 17
    order = np.argsort(abs(image).ravel())
    monotone = (np.diff(abs(drawn[changed]).reshape(-1, image.size)[:, order], axis=1) > -1e-6).all(axis=1)
    assert monotone.all() == (name == "monotone_remap")
    assert abs(drawn).max() <= 1 + 1e-5


def test_a_bias_field_keeps_the_phase():
    ratio = draw(ONE, n=20, **OFF | {"bias_field": 0.7}) / ONE[0]
    np.testing.assert_allclose(ratio.imag, 0, atol=1e-5)
    assert np.log(ratio.real).max() <= 0.7 + 1e-4
    assert np.log(ratio.real).min() >= -0.7 - 1e-4
    assert (ratio.real.std(axis=(1, 2)) > 1e-2).any()


def test_a_tissue_phase_follows_the_magnitude():
    image = abs(ONE[0]) / abs(ONE[0]).max() + 1e-6j
    drawn = draw([image], n=20, **OFF | {"tissue_phase": 0.5})
    np.testing.assert_allclose(abs(drawn), np.tile(abs(image), (20, 1, 1)), rtol=1e-4)
    angle = np.angle(drawn)
    assert abs(angle).max() <= 0.5 + 1e-3
    assert (abs(angle).max(axis=(1, 2)) > 0.05).any()


def test_crops_of_lower_resolution_have_the_size_of_others_and_their_mean():
    y, x = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64), indexing="ij")
    image = np.exp(-(x**2) - y**2 + 0.5j * x).astype(np.complex64)
    drawn = draw([image], crop=32, n=40, **OFF | {"resolution": 0.5})
    assert drawn.shape == (40, 32, 32)
    # A smooth image has nothing but the crop's size to lose: each is a window of the image, perhaps enlarged.
    assert abs(drawn).max() < 1.05
    extent = abs(np.angle(drawn[:, :, -1:] / drawn[:, :, :1])).max(axis=(1, 2))
    assert extent.min() == pytest.approx(31 / 63, rel=0.1)
    assert 1.5 * extent.min() < extent.max() < 2.1 * extent.min()


def test_whole_images_of_lower_resolution_are_blurred_or_smaller():
    images = [complex_array(40, 48)]
    drawn = [whole(images, seed, resolution=0.5) for seed in range(20)]
    assert {d.shape for d in drawn if d.shape[0] == 40} == {(40, 48)}
    assert any(d.shape[0] < 40 for d in drawn)
    assert min(d.shape[0] for d in drawn) >= 20
    energies = [float((abs(d) ** 2).mean() / (abs(images[0]) ** 2).mean()) for d in drawn if d.shape[0] == 40]
    assert min(energies) < 0.7
    assert max(energies) == pytest.approx(1, abs=1e-4)


def test_the_broad_augmentation_draws_finite_crops_that_follow_from_the_generator():
    images = [complex_array(40, 48, seed=i) / 4 for i in range(3)]
    first = draw(images, n=50, seed=3, **vars(Augmentation.broad()))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(draw(images, n=50, seed=3, **vars(Augmentation.broad())), first)


@pytest.mark.cuda
def test_crops_are_the_same_on_a_gpu():
    images = [torch.rand(2, 40, 48, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    drawn = [
        BatchSource(images, 16, Augmentation.broad())
        .to(torch.device(device))
        .draw(20, torch.Generator().manual_seed(0))
        .cpu()
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-3, atol=1e-4)
