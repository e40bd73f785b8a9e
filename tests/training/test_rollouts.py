"""Reconstructions that a network is trained in."""

import numpy as np
import pytest
import sigpy as sp
import torch

from hggdp_plugin import interop
from hggdp_plugin.checkpoint import load_model
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import center
from hggdp_plugin.training import rollouts
from hggdp_plugin.training.batches import OFF, Augmentation, BatchSource
from hggdp_plugin.training.rollouts import (
    ACCELERATIONS,
    NOISE_FROM,
    NOISES,
    STARTS,
    Consistent,
    Reconstruction,
    Reconstructions,
    measured,
    random_mask,
    random_schedule,
)

SHAPE = (41, 35)
SCHEDULE = NoiseSchedule.fast(levels=3)


@pytest.fixture
def phantom():
    image = head_phantom(SHAPE, num_slices=3)[1]
    return (image / abs(image).max()).astype(np.complex64)


@pytest.fixture
def image(phantom):
    return torch.from_numpy(np.stack([phantom.real, phantom.imag]))


def network(seed=0):
    """A network whose output is not what its start makes it, zero."""
    torch.manual_seed(seed)
    model = UNet(widths=(4, 6), phase_pixels=8)
    torch.nn.init.normal_(model.tail.weight, std=0.1)
    return model


def several(model, image, seed=(5,)):
    return Reconstructions(model, BatchSource([image], 16, Augmentation(**OFF)), seed, len(SCHEDULE))


def losses(running, calls):
    return [float(running.loss(call).detach()) for call in calls]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("turn", [0, 5])
def test_the_gradient_of_the_data_consistency_is_that_of_its_differences(coils, turn, image, monkeypatch, device):
    monkeypatch.setattr(rollouts, "COILS", (coils,))
    place = interop.torch_device(device)
    running = Reconstruction(network().to(place), image.to(place), (1,), SCHEDULE)
    T = running.orientations[turn]
    generator = torch.Generator().manual_seed(0)
    x, move = (torch.randn(*T.oshape, dtype=torch.complex64, generator=generator).to(place) for _ in range(2))
    weight = torch.randn(*SHAPE, dtype=torch.complex64, generator=generator).to(place)
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
    loss = float(running.learn().detach())
    errors = [np.linalg.norm(x - running.reference) ** 2 for x in (running.alg.x, before)]
    assert 0 < loss == pytest.approx(errors[0] / errors[1], rel=1e-3)


@pytest.mark.parametrize("with_cupy", [True, False])
def test_the_network_learns_from_a_step_and_stays_in_training(image, device, with_cupy, monkeypatch):
    """On a GPU also where SigPy works on the CPU."""
    if not with_cupy:
        monkeypatch.setattr(sp.config, "cupy_enabled", False)
    place = interop.torch_device(device)
    model = network().to(place).train()
    running = Reconstruction(model, image.to(place), (0,), SCHEDULE)
    running.step()
    assert all(p.grad is None for p in model.parameters())
    running.learn().backward()
    assert model.training
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.head.weight.grad.any()


def test_the_network_learns_in_autocast_from_the_first_call(image):
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        several(model, image).loss(2).backward()  # which two steps without gradients have brought to its level
    assert model.head.weight.grad.any()


def test_every_call_is_for_the_next_level_of_the_next_image(image, monkeypatch):
    seen, learn = [], Reconstruction.learn

    def recorded(self):
        seen.append((self.seed[-1], self.alg.iter))
        return learn(self)

    monkeypatch.setattr(Reconstruction, "learn", recorded)
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
    good, bad = (Reconstruction(model, image, (3,)).psnr() for model in (load_model("brain-t2")[0], network()))
    assert good > bad + 3


def test_a_reconstruction_that_diverges_begins_anew(image):
    running = several(network(), image)
    assert losses(running, [0])[0] > 0
    running.running[0].alg.x[:] = np.nan
    assert losses(running, [3]) == [0]
    assert losses(running, [6])[0] > 0
    end = Reconstruction(network(), image, (3,), SCHEDULE)
    end.alg.x[:] = np.nan
    assert np.isnan(end.psnr())


def test_an_image_that_is_empty_is_drawn_again(image, monkeypatch):
    drawn, whole = [], BatchSource.whole

    def first_empty(self, generator):
        drawn.append(whole(self, generator) * bool(drawn))
        return drawn[-1]

    monkeypatch.setattr(BatchSource, "whole", first_empty)
    assert losses(several(network(), image), [0])[0] > 0
    assert len(drawn) == 2


def test_measurements_are_of_one_coil_or_several_with_noise(phantom):
    coils = set()
    for seed in range(12):
        y, mps = measured(phantom, np.random.default_rng(seed))
        sampled = (y != 0).any(axis=0)
        coils.add(len(y))
        clean = sp.fft(phantom[None] if mps is None else mps * phantom, axes=(-2, -1))
        residual = (y - clean)[:, sampled]
        std = np.sqrt(np.mean([residual.real**2, residual.imag**2]))
        assert y.dtype == np.complex64
        assert 0 < sampled.mean() < 1
        assert std < 1e-6 if mps is None else 0.9 * NOISES[0] < std < 1.1 * NOISES[1]
    assert coils == {1, 4, 8}


def test_masks_are_of_lines_spokes_and_points():
    kinds = []
    for seed in range(30):
        mask = random_mask((64, 48), np.random.default_rng(seed))
        assert mask.shape == (64, 48)
        assert mask[center(64, 1), center(48, 1)].all()
        assert 0.5 / ACCELERATIONS[1] < mask.mean() < 1.5 / ACCELERATIONS[0]
        lines = (mask == mask[:, :1]).all()
        kinds.append("lines" if lines else "spokes" if mask[:, 24].all() or mask[32].all() else "points")
    assert all(4 < kinds.count(kind) < 18 for kind in ("lines", "spokes", "points"))


def test_half_of_the_schedules_start_elsewhere_than_the_default_and_some_at_noise():
    schedules = [random_schedule(7, np.random.default_rng(seed)) for seed in range(200)]
    others = [s for s in schedules if s != NoiseSchedule.fast(7)]
    from_noise = [s for s in others if not s.from_data]
    assert all(len(s) == 7 and s.sigmas[-1] == pytest.approx(0.005) for s in schedules)
    assert all(STARTS[0] <= s.sigmas[0] <= STARTS[1] for s in others)
    assert all(s.sigmas[0] >= NOISE_FROM for s in from_noise)
    assert 80 < len(others) < 120
    assert 8 < len(from_noise) < len(others) / 2
