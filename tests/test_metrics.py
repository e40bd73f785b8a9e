import numpy as np
import pytest
from skimage.metrics import structural_similarity

from hggdp_plugin import metrics
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
    # The centre and the neighbour of the known filter: size 15, sigma 1.5.
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
    scale = np.vdot(image, reference) / np.vdot(image, image)
    scores = metrics.score(image, reference)
    difference = np.abs(scale * image) - np.abs(reference)
    assert scores.psnr == pytest.approx(-10 * np.log10(np.mean(difference**2)))
    assert scores.psnr_complex == pytest.approx(-10 * np.log10(np.mean(np.abs(scale * image - reference) ** 2)))
    assert scores.nrmse == pytest.approx(np.linalg.norm(scale * image - reference) / np.linalg.norm(reference))
    ssim = structural_similarity(np.abs(scale * image), np.abs(reference), data_range=1)
    assert scores.ssim == pytest.approx(ssim)


def test_the_complex_scale_is_the_best(image, reference):
    best = metrics.score(image, reference).nrmse
    matched, target = metrics.match(image, reference)
    for nudge in (1.01, 0.99, np.exp(0.01j), np.exp(-0.01j)):
        assert np.linalg.norm(nudge * matched - target) / np.linalg.norm(target) > best


def test_a_magnitude_image_is_compared_by_magnitudes(image, reference):
    scores = metrics.score(np.abs(image), reference)
    assert scores.psnr_complex is None
    same = metrics.score(3 * np.abs(image), np.abs(reference))
    assert (scores.psnr, scores.nrmse) == pytest.approx((same.psnr, same.nrmse))
    assert scores.nrmse == pytest.approx(
        np.sqrt(reference.size * 10 ** (-scores.psnr / 10)) / np.linalg.norm(reference)
    )


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
