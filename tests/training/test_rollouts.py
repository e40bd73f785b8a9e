"""Training on rollouts."""

import numpy as np
import pytest
import sigpy as sp
import torch
from helpers import complex_array

from hggdp_plugin import interop
from hggdp_plugin.checkpoint import load_model
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.simulation.masks import center
from hggdp_plugin.training import rollouts
from hggdp_plugin.training.batches import OFF, Augmentation, BatchSource
from hggdp_plugin.training.rollouts import (
    ACCELERATIONS,
    MIN_SIGMA_FROM_NOISE,
    NOISE_STDS,
    START_SIGMAS,
    DataConsistencyFunction,
    Rollout,
    RolloutPool,
    random_mask,
    random_schedule,
    simulate_measurements,
)

SHAPE = (41, 35)
SCHEDULE = NoiseSchedule.fast(levels=3)


@pytest.fixture
def phantom():
    image = head_phantom(SHAPE, num_slices=3)[1]
    return (image / abs(image).max()).astype(np.complex64)


@pytest.fixture
def images(phantom):
    """A batch of one image."""
    return torch.from_numpy(np.stack([phantom.real, phantom.imag]))[None]


@pytest.fixture
def batch(images):
    """Three different images."""
    return torch.cat([images, images.flip(2), images.flip(3)])


def make_denoiser(seed=0):
    """A denoiser whose network's output differs from its initial value, zero."""
    torch.manual_seed(seed)
    network = UNet(widths=(4, 6), phase_resolution=8)
    torch.nn.init.normal_(network.tail.weight, std=0.1)
    return Denoiser(network)


def make_pool(denoiser, images, seed=(5,), levels=(3,), **options):
    return RolloutPool(denoiser, BatchSource(list(images), 16, Augmentation(**OFF)), seed, levels=levels, **options)


def losses(pool, calls):
    return [float(pool.training_step(call).detach()) for call in calls]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("flip", [0, 5])
def test_the_gradient_of_data_consistency_is_that_of_its_differences(coils, flip, batch, monkeypatch, device):
    monkeypatch.setattr(rollouts, "COILS", (coils,))
    torch_device = interop.torch_device(device)
    rollout = Rollout(make_denoiser(), batch.to(torch_device), (1,), SCHEDULE)
    T = rollout.orientations[flip]
    x, move, weight = (
        torch.from_numpy(complex_array(*shape, seed=seed)).to(torch_device)
        for seed, shape in enumerate((T.oshape, T.oshape, T.ishape))
    )
    x.requires_grad_()
    for sigma in (0.1, 0.005):
        before, after = (
            DataConsistencyFunction.apply(image, T, rollout.consistency, sigma**2) for image in (x, x + move)
        )
        x.grad = None
        (before * weight.conj()).real.sum().backward()
        expected = ((after - before) * weight.conj()).real.sum()
        torch.testing.assert_close((move * x.grad.conj()).real.sum(), expected.detach(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("n", [1, 3])
def test_the_loss_is_the_part_of_the_error_that_remains_after_a_step(n, batch):
    schedule = NoiseSchedule.fast(levels=3, eta=0.0, momentum=0.0)
    rollout = Rollout(make_denoiser(), batch[:n], (0,), schedule)
    before = rollout.alg.x.copy()
    loss = float(rollout.training_step().detach())
    after, before = (np.linalg.norm(x - rollout.reference, axis=(1, 2)) ** 2 for x in (rollout.alg.x, before))
    assert 0 < loss == pytest.approx((after / before).mean(), rel=1e-3)


def test_a_rollout_is_the_reconstruction_that_the_app_makes(images, monkeypatch):
    """But for its noise and flips, of which this schedule has none."""
    from hggdp_plugin import HGGDPRecon
    from hggdp_plugin.prior import ScorePrior

    monkeypatch.setattr(rollouts, "COILS", (4,))
    schedule, denoiser = NoiseSchedule.fast(levels=3, eta=0.0, random_flips=False), make_denoiser()
    rollout = Rollout(denoiser, images, (1,), schedule)
    rollout.orientations = rollout.orientations[:1]
    while not rollout.alg.done():
        rollout.step()
    y, mps, mask = simulate_measurements(images.numpy().transpose(0, 2, 3, 1).copy().view(np.complex64)[..., 0], rng(1))
    prior = ScorePrior(denoiser.network, autocast=False)
    app = HGGDPRecon(y, mps, weights=mask, prior=prior, schedule=schedule, show_pbar=False)
    app.run()
    np.testing.assert_allclose(rollout.alg.x, app.alg.x, atol=1e-5)


def rng(*seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("with_cupy", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_the_network_learns_from_a_step_in_any_mode(n, batch, device, with_cupy, monkeypatch):
    """On a GPU also where SigPy computes on the CPU."""
    if not with_cupy:
        monkeypatch.setattr(sp.config, "cupy_enabled", False)
    torch_device = interop.torch_device(device)
    denoiser = make_denoiser()
    network = denoiser.network.to(torch_device).train()
    rollout = Rollout(denoiser, batch[:n].to(torch_device), (0,), SCHEDULE)
    rollout.step()
    assert all(p.grad is None for p in network.parameters())
    rollout.training_step().backward()
    assert network.training
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.head.weight.grad.any()


def test_the_network_learns_in_autocast_from_the_first_call(images):
    denoiser = make_denoiser()
    with torch.autocast("cpu", torch.bfloat16):
        make_pool(denoiser, images).training_step(2).backward()  # after two steps without gradients
    assert denoiser.network.head.weight.grad.any()


@pytest.fixture
def seen(monkeypatch):
    """Records number and level of each step of a rollout."""
    calls, training_step = [], Rollout.training_step

    def recorded(self):
        calls.append((self.seed[-1], self.alg.iter))
        return training_step(self)

    monkeypatch.setattr(Rollout, "training_step", recorded)
    return calls


def test_every_call_is_for_the_next_level_of_the_next_rollout(images, seen):
    losses(make_pool(make_denoiser(), images), range(9))
    assert seen == [(0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (5, 0), (0, 2), (4, 0), (5, 1)]


def test_schedules_of_different_lengths_follow_each_other(images, seen):
    """Every rollout that starts at its first level runs to the end of its schedule."""
    pool = make_pool(make_denoiser(), images, levels=(2, 3, 5))
    losses(pool, range(5 * 12))
    levels = {}
    for number, level in seen:
        levels.setdefault(number, []).append(level)
    lengths = {len(run) for run in levels.values() if run[0] == 0}
    assert {2, 3, 5} <= lengths
    for number, run in levels.items():
        assert run == list(range(run[0], run[0] + len(run)))
        length = len(pool._draw_schedule(*divmod(number, pool.n_slots)[::-1]))
        assert run[-1] == length - 1 or number in {slot.generation * 5 + i for i, slot in enumerate(pool.slots)}


def test_stored_rollouts_continue_as_they_were(batch, seen):
    options = {"levels": (2, 3), "batch": 2, "crop": 20}
    first = make_pool(make_denoiser(), batch, **options)
    losses(first, range(5))
    stored = first.state()
    changed = make_denoiser(seed=1)
    first.denoiser.network.load_state_dict(changed.network.state_dict())
    expected = losses(first, range(5, 12))
    seen.clear()
    second = make_pool(changed, batch, **options)
    second.stored = stored
    assert losses(second, [5]) == expected[:1]
    third = make_pool(changed, batch, **options)  # stopped again, before all had continued
    third.stored = second.state()
    assert losses(third, range(6, 12)) == expected[1:]
    assert losses(make_pool(changed, batch, **options), range(5, 12)) != expected


def test_a_schedule_may_be_given(images):
    given = NoiseSchedule.fast(levels=2, sigma_max=0.3)
    pool = make_pool(make_denoiser(), images, levels=(2,), draw_schedule=lambda levels, rng: given)
    losses(pool, range(2))
    assert all(slot.rollout.alg.schedule is given for slot in pool.slots)


def test_a_rollout_ends_closer_to_its_reference_with_a_better_network(images):
    good, bad = (
        Rollout(denoiser, images, (3,)).psnr() for denoiser in (Denoiser(load_model("brain-t2")[0]), make_denoiser())
    )
    assert good > bad + 3


def test_a_rollout_that_diverges_starts_again(images):
    pool = make_pool(make_denoiser(), images)
    assert losses(pool, [0])[0] > 0
    pool.slots[0].rollout.alg.x[:] = np.nan
    assert losses(pool, [3]) == [0]
    assert losses(pool, [6])[0] > 0
    end = Rollout(make_denoiser(), images, (3,), SCHEDULE)
    end.alg.x[:] = np.nan
    assert np.isnan(end.psnr())


@pytest.mark.parametrize("n", [1, 2])
def test_empty_images_are_drawn_again(n, images, monkeypatch):
    name, drawn = "whole" if n == 1 else "draw", []
    draw = getattr(BatchSource, name)

    def first_empty(self, *args):
        drawn.append(draw(self, *args))
        if len(drawn) == 1:
            drawn[0][-1] = 0
        return drawn[-1]

    monkeypatch.setattr(BatchSource, name, first_empty)
    pool = make_pool(make_denoiser(), images, batch=n)
    assert losses(pool, [0])[0] > 0
    assert len(drawn) == 2


def test_the_images_of_a_batch_are_crops_of_one_size(batch):
    for crop, size in ((None, 16), (24, 24), (40, 40)):  # 40: larger than the images, which are reflected
        pool = make_pool(make_denoiser(), batch, batch=3, crop=crop)
        losses(pool, [0])
        assert pool.slots[0].rollout.alg.x.shape == (3, size, size)


@pytest.mark.parametrize("coils", [1, 4])
def test_the_items_of_a_batch_have_their_own_masks_and_noise(coils, phantom, monkeypatch, device):
    monkeypatch.setattr(rollouts, "COILS", (coils,))
    clean = sp.to_device(np.stack([phantom] * 3), device)
    y, mps, mask = (None if a is None else sp.to_device(a) for a in simulate_measurements(clean, rng(0)))
    assert y.shape == (3, coils, *SHAPE)
    assert mask.shape == (3, 1, *SHAPE)
    assert (mask[0] != mask[1]).any()
    assert ((y != 0).any(axis=1, keepdims=True) == mask).all()
    residual = y - mask * sp.fft(phantom * (np.ones((1, 1, 1)) if mps is None else mps), axes=(-2, -1))
    both = (mask[0] * mask[1]).astype(bool)
    if coils == 1:
        assert abs(residual).max() < 1e-5
    else:
        assert (residual[0] != residual[1])[:, both[0]].all()
        stds = [r.std() for r in residual]
        assert len(set(stds)) == 3


def test_measurements_are_of_one_coil_or_several_with_noise(phantom):
    coils = set()
    for seed in range(12):
        y, mps, mask = (None if a is None else a[0] for a in simulate_measurements(phantom[None], rng(seed)))
        if mps is not None:
            mps = rollouts._coil_maps(len(y), SHAPE, -1)
        sampled = mask[0] > 0
        coils.add(len(y))
        clean = sp.fft(phantom[None] if mps is None else mps * phantom, axes=(-2, -1))
        residual = (y - clean)[:, sampled]
        std = np.sqrt(np.mean([residual.real**2, residual.imag**2]))
        assert y.dtype == np.complex64
        assert 0 < sampled.mean() < 1
        assert std < 1e-6 if mps is None else 0.9 * NOISE_STDS[0] < std < 1.1 * NOISE_STDS[1]
    assert coils == {1, 4, 8}


def test_masks_are_of_lines_spokes_and_points():
    kinds = []
    for seed in range(30):
        mask = random_mask((64, 48), rng(seed))
        assert mask.shape == (64, 48)
        assert mask[center(64, 1), center(48, 1)].all()
        assert 0.5 / ACCELERATIONS[1] < mask.mean() < 1.5 / ACCELERATIONS[0]
        lines = (mask == mask[:, :1]).all()
        kinds.append("lines" if lines else "spokes" if mask[:, 24].all() or mask[32].all() else "points")
    assert all(4 < kinds.count(kind) < 18 for kind in ("lines", "spokes", "points"))


def test_half_of_the_schedules_start_elsewhere_than_the_default_and_some_at_noise():
    schedules = [random_schedule((7,), rng(seed)) for seed in range(200)]
    others = [s for s in schedules if s != NoiseSchedule.fast(7)]
    from_noise = [s for s in others if not s.from_data]
    assert all(len(s) == 7 and s.sigmas[-1] == pytest.approx(0.005) for s in schedules)
    assert all(START_SIGMAS[0] <= s.sigmas[0] <= START_SIGMAS[1] for s in others)
    assert all(s.sigmas[0] >= MIN_SIGMA_FROM_NOISE for s in from_noise)
    assert 80 < len(others) < 120
    assert 8 < len(from_noise) < len(others) / 2


def test_the_lengths_of_schedules_are_equally_likely():
    lengths = [len(random_schedule((3, 7, 25), rng(seed))) for seed in range(300)]
    assert all(70 < lengths.count(n) < 130 for n in (3, 7, 25))


def test_rollouts_from_noise_start_at_different_noise(batch):
    schedule = NoiseSchedule.fast(levels=3, from_data=False)
    one, other = (Rollout(make_denoiser(), batch[:1].repeat(2, 1, 1, 1), seed, schedule) for seed in ((0,), (1,)))
    assert (one.alg.x != other.alg.x).all()
    assert (one.alg.x[0] != one.alg.x[1]).all()
