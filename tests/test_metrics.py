import numpy as np
import pytest
from bart_tool import bart, needs_bart
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from hggdp_plugin import metrics
from hggdp_plugin.io.cfl import write_cfl
from hggdp_plugin.simulation import head_phantom


@pytest.fixture(scope="module")
def reference():
    return head_phantom((48, 40))[0]


@pytest.fixture(scope="module")
def image(reference):
    rng = np.random.default_rng(0)
    return reference + 0.05 * (rng.standard_normal(reference.shape) + 1j * rng.standard_normal(reference.shape))


def test_psnr_and_nrmse_by_hand():
    reference = np.array([[1.0, 0.0], [0.0, 0.0]])
    image = np.array([[1.0, 0.1], [0.1, 0.0]])
    assert metrics.psnr(image, reference) == pytest.approx(-10 * np.log10(0.02 / 4))
    assert metrics.nrmse(image, reference) == pytest.approx(np.sqrt(0.02))
    assert metrics.psnr(1j * reference, reference) == pytest.approx(-10 * np.log10(2 / 4))
    assert metrics.psnr(reference, reference) == np.inf


def test_log_kernel_by_formula():
    kernel = metrics.log_kernel()
    assert kernel.shape == (15, 15)
    assert kernel.sum() == pytest.approx(0, abs=1e-15)
    # The center and the neighbor of the known filter: size 15, sigma 1.5.
    np.testing.assert_allclose(kernel[7, 7:10], [-0.0628760329, -0.0391589117, -0.00287208559], rtol=1e-7)
    assert (kernel == kernel.T).all()
    assert (kernel == kernel[::-1, ::-1]).all()


def test_hfen_of_a_point_is_the_norm_of_the_kernel():
    point = np.zeros((41, 41))
    point[20, 20] = 2
    assert metrics.hfen(point, np.zeros_like(point)) == pytest.approx(2 * np.linalg.norm(metrics.log_kernel()))
    corner = np.zeros((41, 41))
    corner[0, 0] = 1
    assert metrics.hfen(corner, np.zeros_like(corner)) == pytest.approx(np.linalg.norm(metrics.log_kernel()[7:, 7:]))


def test_equal_images_are_perfect(reference):
    scores = metrics.score(reference, reference)
    assert scores.psnr > 200
    assert scores.psnr_complex > 200
    assert scores.ssim == pytest.approx(1)
    assert scores.hfen == pytest.approx(0, abs=1e-9)
    assert scores.nrmse == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("factor", [1e-9, 1e6, -1, np.exp(2.1j), 1e-20j])
def test_the_scale_and_the_phase_of_either_do_not_matter(image, reference, factor):
    expected = vars(metrics.score(image, reference))
    for a, b in ((factor * image, reference), (image, factor * reference)):
        assert vars(metrics.score(a, b)) == pytest.approx(expected, rel=1e-5)


def test_scores_follow_their_definitions(image, reference):
    reference = (reference / np.abs(reference).max()).astype(complex)
    scores = metrics.score(image, reference)
    scale = np.vdot(image, reference) / np.vdot(image, image)
    error = np.abs(scale * image - reference)
    assert scores.psnr_complex == pytest.approx(-10 * np.log10(np.mean(error**2)))
    assert scores.nrmse_complex == pytest.approx(np.linalg.norm(error) / np.linalg.norm(reference))
    magnitude, target = np.abs(image), np.abs(reference)
    magnitude = magnitude * np.sum(magnitude * target) / np.sum(magnitude**2)
    assert scores.psnr == pytest.approx(-10 * np.log10(np.mean((magnitude - target) ** 2)))
    assert scores.nrmse == pytest.approx(np.linalg.norm(magnitude - target) / np.linalg.norm(target))
    assert scores.ssim == pytest.approx(structural_similarity(magnitude, target, data_range=1))


def test_scores_agree_with_scikit_image(image, reference):
    magnitude, target = metrics.match(np.abs(image), np.abs(reference))
    scores = metrics.score(image, reference)
    assert scores.psnr == pytest.approx(peak_signal_noise_ratio(target, magnitude, data_range=1))
    assert scores.nrmse == pytest.approx(normalized_root_mse(target, magnitude))


@needs_bart
def test_nrmse_agrees_with_bart(image, reference, tmp_path):
    for name, array in {"image": image, "reference": reference, "magnitude": np.abs(image)}.items():
        write_cfl(tmp_path / f"{name}.cfl", array)
    write_cfl(tmp_path / "target.cfl", np.abs(reference))
    scores = metrics.score(image, reference)
    for command, ours in {"reference image": scores.nrmse_complex, "target magnitude": scores.nrmse}.items():
        # BART fits the reference to the image and divides by that scale: larger, by the cosine of their angle.
        theirs = ours / np.sqrt(1 - ours**2)
        assert float(bart(f"nrmse -s {command}", tmp_path)) == pytest.approx(theirs, rel=1e-4)


def test_scores_computed_by_hand():
    """Where the reference is 1 the image is 2j, and it is 1 where the reference is 0."""
    reference, image = np.zeros((8, 8)), np.zeros((8, 8), complex)
    reference[:, :4], image[:, :4] = 1, 2j
    image[0, 7] = 1
    scale = 2 * 32 / (4 * 32 + 1)
    squared_error = 32 * (2 * scale - 1) ** 2 + scale**2
    scores = metrics.score(image, reference)
    assert scores.psnr == pytest.approx(10 * np.log10(64 / squared_error))
    assert scores.nrmse == pytest.approx(np.sqrt(squared_error / 32))
    assert scores.psnr_complex is None
    with_phase = metrics.score(image, 1j * reference)  # the pixel beside has a phase of its own, the scale is the same
    assert with_phase.psnr_complex == pytest.approx(scores.psnr)


def test_the_complex_scale_is_the_best(image, reference):
    best = metrics.score(image, reference).nrmse_complex
    matched, target = metrics.match(image, reference)
    for nudge in (1.01, 0.99, np.exp(0.01j), np.exp(-0.01j)):
        assert np.linalg.norm(nudge * matched - target) / np.linalg.norm(target) > best


def test_equal_images_score_equally_whatever_their_type(image, reference):
    magnitude = np.abs(image).astype(np.float32)
    expected = metrics.score(magnitude, reference)
    assert expected.psnr_complex is None
    assert metrics.score(magnitude.astype(np.complex64), reference) == expected
    assert metrics.score(magnitude, np.abs(reference)) == pytest.approx(expected)
    of_complex = metrics.score(image, reference)
    assert (of_complex.psnr, of_complex.ssim) == pytest.approx((expected.psnr, expected.ssim))
    signed = magnitude - magnitude.mean()
    assert metrics.score(signed, reference) == metrics.score(signed.astype(np.complex64), reference)


def test_a_zero_image_scores_badly_but_scores(reference):
    scores = metrics.score(np.zeros_like(reference), reference)
    assert scores.nrmse == pytest.approx(1)
    assert np.isfinite(scores.psnr)


def test_means_over_slices(image, reference):
    both = metrics.score_slices(np.stack([image, 2 * image]), np.stack([reference, reference]))
    assert vars(metrics.mean_scores(both)) == pytest.approx(vars(both[0]))
    magnitudes = metrics.score_slices(np.abs(image)[None], reference[None])
    assert metrics.mean_scores(magnitudes).psnr_complex is None


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda x: (x, x[1:]), "equal in shape"),
        (lambda x: (x[None], x[None]), "2D"),
        (lambda x: (x[:5], x[:5]), "at least 7"),
        (lambda x: (x * np.nan, x), "finite"),
        (lambda x: (x, 0 * x), "zero everywhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(reference, make, told):
    with pytest.raises(ValueError, match=told):
        metrics.score(*make(reference))
    with pytest.raises(ValueError, match="shape"):
        metrics.score_slices(reference[None], reference)
