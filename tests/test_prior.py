"""The prior on SigPy arrays: denoiser and score, views, any size, SigPy's own apps."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import sigpy as sp
import torch
from helpers import complex_array as images

from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.linops import Sense
from hggdp_plugin.models.denoiser import Denoiser
from hggdp_plugin.prior import ScorePrior, has_bfloat16, load_prior


class Shrink(torch.nn.Module):
    """The denoiser of images of independent normal pixels of the given variance; remembers what it was called with."""

    stride, sigma_min, sigma_max = 4, 0.1, 1.0

    def __init__(self, views: int = 1, variance: float = 0.5) -> None:
        super().__init__()
        self.views, self.variance = views, variance
        self.calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.calls.append((x, sigma))
        mean = x.unflatten(1, (self.views, 2)).mean(1).repeat(1, self.views, 1, 1)
        return mean * (self.variance / (self.variance + sigma**2 / self.views))[:, None, None, None]


def test_score_and_denoiser_belong_together(prior, device):
    x, sigma = sp.to_device(images(2, 16, 16), device), 0.2
    denoised, score = prior.denoise(x, sigma), prior.score(x, sigma)
    for result in (denoised, score):
        assert sp.get_device(result) == device
        assert result.dtype == np.complex64
        assert result.shape == x.shape
    np.testing.assert_allclose(sp.to_device(x + sigma**2 * score), sp.to_device(denoised), atol=1e-5)


def test_double_precision_in_single_precision_out(prior):
    x = images(16, 16).astype(np.complex128)
    assert prior.denoise(x, 0.1).dtype == prior.score(x, 0.1).dtype == np.complex64


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("sigma", [0.07, 0.3, 0.55])
def test_the_score_of_a_normal_distribution(views, sigma):
    """For K views the network sees sigma sqrt(K), and takes the score of the image for noise sigma."""
    x = images(8, 8)
    score = ScorePrior(Shrink(views), autocast=False).score(x, sigma)
    np.testing.assert_allclose(score, -x / (0.5 + max(sigma, 0.1 / views**0.5) ** 2), rtol=1e-3, atol=1e-4)


def test_below_the_trained_levels_the_score_is_that_of_the_lowest():
    prior, x = ScorePrior(Shrink(), autocast=False), images(8, 8)
    lowest = prior.score(x, 0.1)
    for sigma in (0.05, 1e-3, 1e-6):
        np.testing.assert_allclose(prior.score(x, sigma), lowest, rtol=1e-5)
        np.testing.assert_allclose(prior.denoise(x, sigma), x + sigma**2 * lowest, atol=1e-6)


def test_above_the_trained_levels_the_image_is_taken_to_have_the_highest():
    prior, x = ScorePrior(Shrink(), autocast=False), images(8, 8)
    np.testing.assert_array_equal(prior.denoise(x, 7.0), prior.denoise(x, 1.0))
    np.testing.assert_allclose(prior.score(x, 7.0) * 49, prior.score(x, 1.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (17, 16), (31, 45)])
@pytest.mark.parametrize("views", [1, 2])
def test_any_size(make_network, shape, views):
    x = images(*shape)
    denoised = ScorePrior(make_network(views), autocast=False).denoise(x, 0.3)
    assert denoised.shape == shape
    assert np.isfinite(denoised).all()


def test_padding_reflects_and_is_cropped():
    prior, x = ScorePrior(Shrink(), autocast=False), images(6, 7)
    np.testing.assert_allclose(prior.denoise(x, 0.5), x * 0.5 / 0.75, rtol=1e-6)
    seen = prior.denoiser(torch.device("cpu")).network.calls[0][0][0].numpy()
    np.testing.assert_array_equal(seen[0] + 1j * seen[1], np.pad(x, ((0, 2), (0, 1)), "reflect"))


def test_any_batch_in_any_chunks(make_network):
    x = images(2, 3, 1, 12, 10)
    network = make_network()
    whole = ScorePrior(network, autocast=False).denoise(x, 0.3)
    assert whole.shape == x.shape
    np.testing.assert_allclose(ScorePrior(network, autocast=False, chunk=4).denoise(x, 0.3), whole, atol=1e-6)
    np.testing.assert_allclose(ScorePrior(network, autocast=False).denoise(x[1, 2, 0], 0.3), whole[1, 2, 0], atol=1e-6)


def test_strides_and_types_do_not_matter(prior):
    x = images(12, 10)
    expected = prior.denoise(x, 0.3)
    np.testing.assert_array_equal(prior.denoise(x[::-1][::-1], 0.3), expected)
    np.testing.assert_array_equal(prior.denoise(np.asfortranarray(x), 0.3), expected)
    np.testing.assert_array_equal(prior.denoise(x.astype(np.complex128), 0.3), expected)
    x.flags.writeable = False
    np.testing.assert_array_equal(prior.denoise(x, 0.3), expected)


def test_the_result_is_new_and_can_be_changed(prior):
    x = images(16, 16)
    before = x.copy()
    denoised = prior.denoise(x, 1e-6)
    denoised += 1
    np.testing.assert_array_equal(x, before)


def test_views_are_made_with_the_noise_the_network_was_trained_on():
    """An image with noise sigma becomes K views whose noise is sqrt(K) sigma each, independent, with its mean."""
    K, sigma, n = 3, 0.3, 200 * 200
    prior = ScorePrior(Shrink(K), autocast=False)
    x = sigma * images(200, 200)  # the clean image is 0
    prior.denoise(x, sigma, np.random.default_rng(1))
    (seen, level), *_ = prior.denoiser(torch.device("cpu")).network.calls
    assert float(level[0]) == pytest.approx(K**0.5 * sigma)
    channels = seen[0].reshape(2 * K, n).double().numpy()
    covariance = channels @ channels.T / n / (K * sigma**2)
    # Standard errors of a sample variance and covariance of unit normals: sqrt(2 / n) and sqrt(1 / n).
    np.testing.assert_allclose(covariance, np.eye(2 * K), atol=5 * (2 / n) ** 0.5)
    mean = channels.reshape(K, 2, n).mean(0)
    np.testing.assert_allclose(mean[0] + 1j * mean[1], x.ravel(), atol=1e-5)


def test_views_are_repeatable(make_network):
    x = images(2, 16, 16)
    x[1] = x[0]
    prior = ScorePrior(make_network(3), autocast=False)
    first = prior.denoise(x, 0.2)
    np.testing.assert_array_equal(prior.denoise(x, 0.2), first)
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    assert (prior.denoise(x, 0.2, np.random.default_rng(9)) != first).any()


def test_given_views_are_denoised_as_they_are():
    model, views = Shrink(3), images(2, 3, 8, 8)
    prior = ScorePrior(model, autocast=False)
    expected = views.mean(1, keepdims=True) * 0.5 / (0.5 + 0.4**2 / 3)
    np.testing.assert_allclose(prior.denoise_views(views, 0.4), np.repeat(expected, 3, 1), rtol=1e-4, atol=1e-5)
    for wrong in (images(8, 8), images(2, 2, 8, 8)):
        with pytest.raises(ValueError, match=r"^x: expected 3 views"):
            prior.denoise_views(wrong, 0.4)


def test_as_a_proximal_operator_it_is_the_denoiser():
    x = images(8, 8)
    prior = ScorePrior(Shrink(), autocast=False, lamda=2.0)
    np.testing.assert_array_equal(prior(0.08, x), prior.denoise(x, 0.4))


def test_it_plugs_into_sigpy(measurement):
    """The proximal operator of a normal prior makes SigPy's app solve the regularized least-squares problem."""
    m = measurement
    A = Sense(m.mps, weights=m.mask.astype(np.float32))
    prior = ScorePrior(Shrink(variance=1.0), autocast=False, lamda=0.1)
    x = sp.app.LinearLeastSquares(A, m.y, proxg=prior, max_iter=100, show_pbar=False).run()
    # prox(alpha, x) = x / (1 + lamda alpha): the penalty is lamda / 2 |x|^2.
    expected = sp.app.LinearLeastSquares(A, m.y, lamda=0.1, max_iter=100, show_pbar=False).run()
    np.testing.assert_allclose(x, expected, atol=2e-3)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="needs a processor with bfloat16")
def test_autocast_is_close_and_can_be_switched_off(make_network):
    x, network = images(16, 16), make_network()
    full = ScorePrior(network, autocast=False).denoise(x, 0.2)
    fast = ScorePrior(network).denoise(x, 0.2)
    assert 0 < np.linalg.norm(fast - full) < 0.01 * np.linalg.norm(full)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="needs a processor with bfloat16")
def test_weights_are_rounded_as_autocast_does_and_the_given_ones_stay(make_network):
    network = make_network()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    prior = ScorePrior(network)
    x = images(2, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        channels = torch.view_as_real(torch.from_numpy(x)).permute(0, 3, 1, 2)
        expected = Denoiser(network)(channels, 0.2).permute(0, 2, 3, 1).contiguous()
    np.testing.assert_array_equal(prior.denoise(x, 0.2), torch.view_as_complex(expected).numpy())
    assert next(prior.denoiser(torch.device("cpu")).network.parameters()).dtype == torch.bfloat16
    for name, weight in prior.model.state_dict().items():
        assert torch.equal(weight, before[name])
    prior.autocast = False
    np.testing.assert_array_equal(prior.denoise(x, 0.2), ScorePrior(network, autocast=False).denoise(x, 0.2))


def test_the_given_network_is_not_changed(make_network):
    network = make_network().train()
    strides = [weight.stride() for weight in network.parameters()]
    ScorePrior(network).denoise(images(16, 16), 0.2)
    assert network.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in network.parameters())
    assert [weight.stride() for weight in network.parameters()] == strides


def test_a_prior_can_be_sent_to_another_process(make_network):
    x, prior = images(16, 16), ScorePrior(make_network())
    expected = prior.denoise(x, 0.2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prior)).denoise(x, 0.2), expected)


@pytest.mark.cuda
def test_gpu_and_cpu_agree(make_network):
    x, prior = images(2, 16, 16), ScorePrior(make_network(), autocast=False)
    np.testing.assert_allclose(sp.to_device(prior.denoise(sp.to_device(x, 0), 0.2)), prior.denoise(x, 0.2), atol=1e-3)
    views = images(2, 3, 16, 16)
    prior = ScorePrior(make_network(3), autocast=False)
    on_gpu = prior.denoise_views(sp.to_device(views, 0), 0.2)
    np.testing.assert_allclose(sp.to_device(on_gpu), prior.denoise_views(views, 0.2), atol=1e-3)


@pytest.mark.cuda
def test_views_are_made_on_the_gpu(make_network):
    x = sp.to_device(images(2, 16, 16), 0)
    denoised = ScorePrior(make_network(3), autocast=False).denoise(x, 0.2)
    assert sp.get_device(denoised) == sp.Device(0)
    assert np.isfinite(sp.to_device(denoised)).all()


def test_load_prior(make_network, tmp_path):
    network = make_network()
    save_model(tmp_path / "p.safetensors", network, {"training": {"steps": 5}})
    prior = load_prior(tmp_path / "p.safetensors", autocast=False, lamda=3.0)
    assert prior.lamda == 3
    assert prior.views == 1
    assert prior.description["training"] == {"steps": 5}
    x = images(16, 16)
    np.testing.assert_allclose(prior.denoise(x, 0.2), ScorePrior(network, autocast=False).denoise(x, 0.2), atol=1e-6)


def test_load_prior_explains_in_one_line_what_is_wrong(tmp_path):
    (tmp_path / "text.safetensors").write_text("not a network\n" * 10)
    for name in ("no-such-prior", tmp_path / "text.safetensors", tmp_path):
        with pytest.raises(ValueError, match=r"^prior .*") as error:
            load_prior(name)
        assert str(name) in str(error.value)
        assert "\n" not in str(error.value)


def test_bfloat16_of_a_build_without_mkldnn(monkeypatch):
    monkeypatch.setattr(torch.backends, "mkldnn", SimpleNamespace(is_available=lambda: False))
    assert not has_bfloat16(torch.device("cpu"))


def test_bfloat16_of_a_processor_that_only_emulates_it(monkeypatch):
    """As PyTorch does with AVX-512 alone, at several times the time of float32."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_bfloat16(torch.device("cpu"))
