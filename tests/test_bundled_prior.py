"""The prior that comes with the package: its description, denoising, and the reconstruction of the example."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import sigpy.mri as mr

from hggdp_plugin import HGGDPRecon, bundled_priors, load_prior
from hggdp_plugin.checkpoint import PRIORS
from hggdp_plugin.io import read_raw
from hggdp_plugin.metrics import psnr, score
from hggdp_plugin.schedule import NoiseSchedule
from hggdp_plugin.simulation import head_phantom
from hggdp_plugin.uncertainty import QUICK, stored_factor
from hggdp_plugin.volume.calibration import estimate_maps

EXAMPLE = Path(__file__).parent.parent / "examples" / "phantom.h5"


def test_the_bundled_priors_are_there():
    assert {"brain-t2", "mri-any"} <= set(bundled_priors())


@pytest.mark.parametrize("name", bundled_priors())
def test_it_is_small_and_has_a_card(name):
    assert (PRIORS / f"{name}.safetensors").stat().st_size <= 16e6
    assert (PRIORS / f"{name}.md").is_file()


@pytest.mark.parametrize("name", bundled_priors())
def test_its_file_says_how_it_was_made(name):
    description = load_prior(name).description
    assert description["architecture"] == "unet"
    assert {"views", "sigma_min", "sigma_max"} <= set(description["config"])
    assert {"data", "steps", "augmentation"} <= set(description["training"])
    assert "maximum magnitude" in description["scale"]
    assert len(description["validation_psnr"]) >= 5


@pytest.mark.parametrize("name", bundled_priors())
@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.1, 0.3])
def test_it_denoises_images_it_was_not_trained_on(sigma, name):
    image = head_phantom((128, 128), seed=3)[0]
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, *image.shape)).astype(np.float32)
    noisy = image + np.float32(sigma) * (noise[0] + 1j * noise[1])
    gain = psnr(load_prior(name).denoise(noisy, sigma), image) - psnr(noisy, image)
    # A Gaussian filter of the best width gains 0.1, 1.3, 5.7 and 11.6 dB here.
    assert gain > {0.01: 2, 0.03: 4, 0.1: 8, 0.3: 12.5}[sigma]


def test_the_example_is_better_than_sense():
    raw = read_raw(EXAMPLE)
    ksp, mps = raw.ksp[0, 0, 0, 0, 0], estimate_maps(raw)[0]
    with h5py.File(EXAMPLE) as file:
        reference = abs(file["reference/image"][0])
    sense = mr.app.SenseRecon(ksp, mps, lamda=0.01, show_pbar=False).run()
    ours = HGGDPRecon(ksp, mps, noise_var=1.0, show_pbar=False).run()
    assert score(abs(ours), reference).psnr > score(abs(sense), reference).psnr + 3


@pytest.mark.parametrize("sampling", ["lines", "points", "non-Cartesian"])
def test_error_maps_of_the_default_are_calibrated(sampling):
    factor = stored_factor(load_prior(), f"{sampling}, coils", NoiseSchedule.fast(), QUICK)
    assert 1 < factor.factor < 2
    assert factor.quantiles["50"] < factor.quantiles["80"] < factor.quantiles["95"]
    assert factor.n_slices >= 3
