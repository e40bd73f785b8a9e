"""hggdp recon on BART's own data, against BART's own reconstruction."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from bart_tool import bart as run_bart
from bart_tool import needs_bart
from matplotlib.image import imread

from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.io.cfl import read_cfl, write_cfl
from hggdp_plugin.models.unet import UNet

pytestmark = needs_bart


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """An untrained network gives back c_skip x: with a noise variance of 0 least squares remains, as in pics."""
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_model(path, UNet(widths=(8, 8), blocks=1), {})
    return ["--prior", str(path), "-N", "4", "--max-cg-iter", "5", "--float32", "-q"]


@pytest.fixture
def bart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return partial(run_bart, folder=tmp_path)


def nrmse(bart, reference, image):
    """BART's error of an image after the best scale."""
    return float(bart(f"nrmse -s {reference} {image}").split()[-1])


def truth_and_sens(bart):
    """The magnitude image and the maps of fully sampled k-space."""
    bart("phantom -s8 -k -x 64 full")
    bart("fft -iu 3 full coils")
    bart("rss 8 coils truth")
    bart("ecalib -m1 full sens")


def undersample():
    """Every second line outside a center of 24."""
    keep = np.arange(64) % 2 == 0
    keep[20:44] = True
    write_cfl(Path("ksp.cfl"), read_cfl("full.cfl") * keep[:, None])


def test_cartesian(bart, prior):
    truth_and_sens(bart)
    undersample()
    bart("pics -l2 -r 0.0001 -i 100 ksp sens pics")
    assert main(["ksp", "--mps", "sens", "-r", "0", *prior]) == 0
    assert nrmse(bart, "pics", "ksp_hggdp") < 1e-3
    assert main(["ksp.cfl", "-o", "own.cfl", "-r", "0", *prior]) == 0  # maps by our ESPIRiT
    bart("cabs pics magnitude")
    bart("cabs own own_magnitude")
    assert nrmse(bart, "magnitude", "own_magnitude") < 0.05


def test_two_sets_of_maps(bart, prior):
    """Half of the field of view, the two images combined by their root sum of squares."""
    bart("phantom -s8 -k -x 128 large")
    write_cfl(Path("full.cfl"), read_cfl("large.cfl")[..., ::2, :])
    bart("ecalib -m2 full sens")
    undersample()
    bart("pics -l2 -r 0.0001 -i 200 ksp sens pics")
    bart("rss 16 pics expected")
    assert main(["ksp", "--mps", "sens", "--maps", "2", "-r", "0", *prior]) == 0
    bart("cabs ksp_hggdp magnitude")
    assert nrmse(bart, "expected", "magnitude") < 0.01


def test_radial(bart, prior):
    """Least squares depends on when one stops: pics itself moves by 0.1 between 30 and 200 iterations."""
    truth_and_sens(bart)
    bart("traj -r -x 64 -y 128 traj")
    bart("phantom -s8 -k -t traj ksp")
    bart("pics -l2 -r 0 -i 30 -t traj ksp sens pics")
    options = ["-t", "traj", "-r", "0", *prior]
    assert main(["ksp.cfl", "--mps", "sens.cfl", *options]) == 0
    assert nrmse(bart, "pics", "ksp_hggdp") < 0.15
    bart("cabs ksp_hggdp magnitude")
    assert nrmse(bart, "truth", "magnitude") < 0.15
    assert main(["ksp.cfl", "-o", "own.cfl", *options]) == 0  # matrix and maps from the data alone
    # Few exact steps with maps of a coarse center, and momentum on a network that shrinks: near, not close.
    bart("cabs own own_magnitude")
    assert nrmse(bart, "truth", "own_magnitude") < 0.3


def test_pictures_are_oriented_as_those_of_bart(bart, prior, tmp_path):
    """The first two dimensions that are not 1 run down and to the right."""
    pydicom = pytest.importorskip("pydicom")
    bart("phantom -s4 -k -x 64 full")
    full = read_cfl(tmp_path / "full.cfl")[..., 8:-8]  # not square
    for name, array in {"plane": full, "read1": full[:, 0, :, :, None]}.items():
        write_cfl(tmp_path / f"{name}.cfl", array)
        assert main([name, "-o", f"{name}.png", *prior]) == 0
        assert main([name, "-o", f"{name}_image", *prior]) == 0
        bart(f"toimg {name}_image {name}.dcm")
        theirs = pydicom.dcmread(tmp_path / f"{name}.dcm", force=True).pixel_array
        ours = imread(tmp_path / f"{name}.png")[..., 0]
        assert ours.shape == theirs.shape
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
