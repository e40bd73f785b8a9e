"""Adaptation to undersampled scans."""

from collections.abc import Callable

import numpy as np
import pytest
import sigpy as sp
import torch
from helpers import complex_array

from hggdp_plugin import interop
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.prior import ScorePrior
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.selfcheck import SliceData, mean_prediction_error
from hggdp_plugin.simulation.masks import radial_trajectory
from hggdp_plugin.training.adaptation import HeldOutError, MeasuredRollout, adapt, judge, without_judged

SHAPE = (60, 56)


@pytest.fixture
def make_slice(make_measurement: Callable) -> Callable[..., SliceData]:
    """A slice of an object with structure, undersampled outside the calibration region."""

    def make(coils: int = 4, radial: bool = False, seed: int = 0) -> SliceData:
        rng = np.random.default_rng(seed)
        image = np.kron(rng.random((15, 14)), np.ones((4, 4))).astype(np.complex64)
        mps = make_measurement(coils=coils, shape=SHAPE).mps
        coord = None
        if radial:
            coord = np.ascontiguousarray(radial_trajectory(30, 60)[..., ::-1] * np.array(SHAPE, np.float32))
            y = sp.nufft(mps * image, coord)
        else:
            mask = rng.random(SHAPE) < 0.5
            mask[17:43, 15:41] = True
            y = sp.fft(mps * image, axes=(-2, -1)) * mask
        return SliceData(y.astype(np.complex64), mps if coils > 1 or radial else None, 1e-4, None, coord)

    return make


def make_rollout(network: UNet, data: SliceData, device: str = "cpu") -> MeasuredRollout:
    return MeasuredRollout(Denoiser(network.to(device)), data, (3,), NoiseSchedule.fast(3), torch.device(device))


@pytest.mark.parametrize(("coils", "radial"), [(1, False), (4, False), (4, True)])
def test_a_rollout_starts_without_the_samples_that_it_is_judged_on(
    make_slice: Callable[..., SliceData], make_network: Callable[..., UNet], coils: int, radial: bool
) -> None:
    data = make_slice(coils, radial)
    rollout = make_rollout(make_network(), data)
    assert rollout.valid.sum() > 50
    if not radial:  # on the grid, others can stand in their places
        changed = data._replace(y=data.y + 7 * rollout.valid)
        other = make_rollout(make_network(), changed)
        np.testing.assert_array_equal(rollout.alg.x, other.alg.x)
        assert not np.allclose(rollout.y, other.y)
    for _ in range(3):
        loss = rollout.training_step()
        assert loss.isfinite()
        loss.backward()
    assert rollout.alg.done()
    assert np.isfinite(rollout.alg.x).all()


def test_the_gradient_of_the_held_out_error_is_that_of_its_differences(
    make_slice: Callable[..., SliceData], make_network: Callable[..., UNet], device: sp.Device
) -> None:
    torch_device = interop.torch_device(device)
    rollout = make_rollout(make_network(), make_slice(), str(torch_device))
    x, move = (torch.from_numpy(complex_array(1, *SHAPE, seed=seed)).to(torch_device) for seed in (0, 1))
    x.requires_grad_()
    HeldOutError.apply(x, rollout).sum().backward()
    slope = torch.vdot(x.grad.flatten(), move.flatten()).real
    with torch.no_grad():
        ahead, behind = (HeldOutError.apply(x + step * move, rollout).sum() for step in (0.5, -0.5))
    # Of a quadratic function, the central difference is exact.
    torch.testing.assert_close(slope, ahead - behind, rtol=1e-3, atol=1e-4)


def test_adaptation_never_sees_what_judges_it(
    make_slice: Callable[..., SliceData], make_network: Callable[..., UNet]
) -> None:
    data, seed = make_slice(), 5
    learned = without_judged(data, seed)
    judged = (data.y != 0) & ~(learned.weights > 0)
    assert judged.any()
    other = without_judged(data._replace(y=np.where(judged, 9 * data.y, data.y)), seed)
    options = {"steps": 3, "learning_rate": 1e-3}
    first, second = (adapt(make_network(), [one], **options).state_dict() for one in (learned, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_adaptation_lowers_the_error_of_samples_that_it_never_saw(
    make_slice: Callable[..., SliceData], make_network: Callable[..., UNet]
) -> None:
    slices = [make_slice(seed=seed) for seed in range(3)]
    network, seen = make_network(), []
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    adapted = adapt(
        network,
        [without_judged(one, 1) for one in slices],
        steps=40,
        learning_rate=2e-3,
        on_step=lambda step, loss: seen.append((step, loss)),
    )
    assert [step for step, _ in seen] == list(range(1, 41))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    priors = {"before": ScorePrior(network, autocast=False), "after": ScorePrior(adapted, autocast=False)}
    checks = judge(priors, slices, 1)
    assert checks["after"].prediction_error.shape == (3,)
    assert mean_prediction_error(checks["after"]) < 0.95 * mean_prediction_error(checks["before"])


def test_what_cannot_be_adapted_is_refused(
    make_slice: Callable[..., SliceData], make_network: Callable[..., UNet]
) -> None:
    with pytest.raises(ValueError, match="slices: expected at least one"):
        adapt(make_network(), [])
    with pytest.raises(ValueError, match="2 views"):
        adapt(make_network(views=2), [make_slice()])
