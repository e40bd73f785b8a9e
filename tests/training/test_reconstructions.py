"""Reconstructions that a network is trained in."""

import numpy as np
import pytest
import torch

from hggdp_plugin.models.unet import UNet
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import centre
from hggdp_plugin.training import reconstructions
from hggdp_plugin.training.data import OFF, Augmentation, BatchSource
from hggdp_plugin.training.reconstructions import (
    ACCELERATIONS,
    CALIBRATIONS,
    Consistent,
    Reconstruction,
    Reconstructions,
    measured,
    random_mask,
)

SHAPE = (40, 36)
SCHEDULE = NoiseSchedule.fast(levels=3)


@pytest.fixture
def image():
    phantom = head_phantom(SHAPE, num_slices=3)[1]
    return torch.from_numpy(np.stack([phantom.real, phantom.imag]).astype(np.float32) / abs(phantom).max())


def network(seed=0):
    """A network whose output is not what its start makes it, zero."""
    torch.manual_seed(seed)
    model = UNet(widths=(4, 6), phase_pixels=8)
    torch.nn.init.normal_(model.tail.weight, std=0.1)
    return model


def several(model, image, seed=(5,)):
    return Reconstructions(model, BatchSource([image], 16, Augmentation(**OFF)), seed, SCHEDULE)


def losses(running, calls):
    return [float(running.loss(call).detach()) for call in calls]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("turn", [0, 5])
def test_the_gradient_of_the_data_consistency_is_that_of_its_differences(coils, turn, image, monkeypatch):
    monkeypatch.setattr(reconstructions, "COILS", (coils,))
    running = Reconstruction(network(), image, (1,), SCHEDULE)
    T = running.orientations[turn]
    generator = torch.Generator().manual_seed(0)
    x, move = (torch.randn(*T.oshape, dtype=torch.complex64, generator=generator) for _ in range(2))
    weight = torch.randn(*SHAPE, dtype=torch.complex64, generator=generator)
    x.requires_grad_()
    for sigma in (0.1, 0.005):
        before, after = (Consistent.apply(image, T, running.alg.prox, sigma**2) for image in (x, x + move))
        x.grad = None
        (before * weight.conj()).real.sum().backward()
        expected = ((after - before) * weight.conj()).real.sum()
        torch.testing.assert_close((move * x.grad.conj()).real.sum(), expected.detach(), rtol=1e-4, atol=1e-3)


def test_the_loss_is_the_part_of_the_error_that_a_step_leaves(image):
    running = Reconstruction(network(), image, (0,), NoiseSchedule.fast(levels=3, eta=0.0, momentum=0.0))
    before = running.alg.x.copy()
    running.step(learn=True)
    errors = [np.linalg.norm(x - running.reference) ** 2 for x in (running.alg.x, before)]
    assert 0 < float(running.loss.detach()) == pytest.approx(errors[0] / errors[1], rel=1e-3)


def test_the_network_learns_from_a_step_and_stays_in_training(image):
    model = network().train()
    running = Reconstruction(model, image, (0,), SCHEDULE)
    running.step()
    assert not hasattr(running, "loss")
    running.step(learn=True)
    running.loss.backward()
    assert model.training
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.head.weight.grad.any()


def test_every_call_is_for_the_next_level_of_the_next_image(image, monkeypatch):
    seen, step = [], Reconstruction.step

    def recorded(self, learn=False):
        if learn:
            seen.append((self.seed[-1], self.alg.iter))
        step(self, learn)

    monkeypatch.setattr(Reconstruction, "step", recorded)
    losses(several(network(), image), range(9))
    # Number of the reconstruction, and its level.
    assert seen == [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (5, 0), (0, 2), (4, 0), (5, 1)]


def test_stored_reconstructions_go_on_as_they_were(image):
    first = several(network(), image)
    losses(first, range(5))
    stored = first.state()
    changed = network(seed=1)
    first.network.load_state_dict(changed.state_dict())
    expected = losses(first, range(5, 12))
    second = several(changed, image)
    second.stored = stored
    assert losses(second, [5]) == expected[:1]
    third = several(changed, image)  # stopped again, before all had gone on
    third.stored = second.state()
    assert losses(third, range(6, 12)) == expected[1:]
    assert losses(several(changed, image), range(5, 12)) != expected


def test_a_reconstruction_ends_closer_to_its_reference_with_a_better_network(image):
    from hggdp_plugin.checkpoint import load_model

    good, bad = (Reconstruction(model, image, (3,)).psnr() for model in (load_model("brain-t2")[0], network()))
    assert good > bad + 3


def test_a_reconstruction_that_diverges_has_no_psnr(image):
    model = network()
    with torch.no_grad():
        model.tail.weight.fill_(float("nan"))
    assert np.isnan(Reconstruction(model, image, (3,), SCHEDULE).psnr())


def test_measurements_are_of_one_coil_or_several_with_noise(image):
    phantom = (image[0] + 1j * image[1]).numpy()
    coils = set()
    for seed in range(12):
        y, mps = measured(phantom, np.random.default_rng(seed))
        sampled = (y != 0).any(axis=0)
        assert y.dtype == np.complex64
        assert 0 < sampled.mean() < 1
        coils.add(len(y))
        if mps is None:
            full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(phantom), norm="ortho"))
            np.testing.assert_allclose(y[0][sampled], full[sampled], rtol=1e-3, atol=1e-5)
        else:
            assert mps.shape == y.shape
    assert coils == {1, 4, 8}


def test_masks_are_of_all_kinds():
    lines = 0
    for seed in range(30):
        mask = random_mask((64, 48), np.random.default_rng(seed))
        assert mask.shape == (64, 48)
        lines += (mask == mask[:, :1]).all()
        assert mask[32, 24]
        assert 0.5 / ACCELERATIONS[1] < mask.mean() < 1.5 / ACCELERATIONS[0]
        calib = round(CALIBRATIONS[0] * 48)
        assert mask[centre(64, calib), centre(48, calib)].all()
    assert 4 < lines < 16
