"""hggdp recon --maps 2: scans whose object is larger than the field of view."""

import json

import numpy as np
import pytest
import sigpy as sp

from hggdp_plugin import HGGDPRecon, NoiseSchedule, load_prior
from hggdp_plugin.apps.__main__ import main as hggdp
from hggdp_plugin.apps.recon import main
from hggdp_plugin.checkpoint import save_model
from hggdp_plugin.coil_maps import combine_sets, espirit_maps
from hggdp_plugin.models.unet import UNet
from hggdp_plugin.simulation import coil_maps, head_phantom

COILS, SHAPE = 4, (32, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two slices with half of the field of view, maps of two sets, and a prior."""
    folder = tmp_path_factory.mktemp("folded")
    save_model(folder / "tiny.safetensors", UNet(widths=(8, 8), blocks=1), {})
    images = head_phantom((64, 40), num_slices=2)[:, None] * coil_maps(COILS, (64, 40))
    ksp = sp.fft(images, axes=(-2, -1))[:, :, ::2]
    ksp[:, :, :8:2] = ksp[:, :, -8::2] = 0
    np.save(folder / "ksp.npy", ksp.astype(np.complex64))
    np.save(folder / "mps.npy", espirit_maps(ksp.astype(np.complex64), (16, 24), maps=2))
    return folder


@pytest.fixture
def recon(folder, tmp_path):
    def recon(*options):
        out = tmp_path / "out.npy"
        prior = ["--prior", str(folder / "tiny.safetensors"), "-N", "4", "--float32"]
        return main([str(folder / "ksp.npy"), "-o", str(out), "--complex", "--overwrite", *prior, *map(str, options)])

    return recon


def test_the_images_of_both_sets_are_combined(recon, folder, tmp_path, capsys):
    ksp, mps = (np.load(folder / f"{name}.npy") for name in ("ksp", "mps"))
    prior = load_prior(folder / "tiny.safetensors", autocast=False)
    schedule = NoiseSchedule.fast(levels=4)
    expected = combine_sets(HGGDPRecon(ksp, mps, maps=2, prior=prior, schedule=schedule, show_pbar=False).run())
    assert recon("--maps", 2, "--mps", folder / "mps.npy") == 0
    image = np.load(tmp_path / "out.npy").squeeze()
    np.testing.assert_allclose(image, expected, atol=1e-4 * abs(expected).max())
    assert json.loads((tmp_path / "out.npy.json").read_text())["options"]["sets_of_maps"] == 2
    capsys.readouterr()
    assert recon("--maps", 2) == 0
    assert "Maps: 2 sets by ESPIRiT" in capsys.readouterr().out
    assert np.load(tmp_path / "out.npy").squeeze().shape == (2, *SHAPE)
    assert recon("--maps", 2, "--coils", 3, "-S", 2, "--schedule", "hggdp", "-K", 2) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--uncertainty"], "--uncertainty is for one set of maps"),
        (["--self-check"], "--self-check is for one set of maps"),
        (["--prior", "auto"], "--prior auto is for one set of maps"),
        (["--coord", "{folder}/mps.npy"], "--coord is for one set of maps"),
        (["--reference-noise", "--schedule", "hggdp"], "--reference-noise is for one set of maps"),
        (["--samples-out", "{folder}/s.npy", "-S", "2"], "--samples-out is for one set of maps"),
        (["--mps", "{folder}/first.npy"], "expected (maps, coils, y, x) = (2, 4, 32, 40)"),
        (["--coils", "1"], "2 sets of maps need several coils"),
        (["--calib-width", "2"], "a fully sampled center of k-space"),
    ],
)
def test_what_is_for_one_set(recon, folder, tmp_path, capsys, options, says):
    np.save(folder / "first.npy", np.load(folder / "mps.npy")[:1, 0])
    assert recon("--maps", 2, *(option.format(folder=folder) for option in options)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.npy").exists()


def test_nothing_folds_over_off_the_grid(folder, tmp_path, capsys):
    options = ["--mask", "radial", "-R", "2", "--coils", "4", "--snr", "50"]
    np.save(tmp_path / "phantom.npy", head_phantom((32, 32), num_slices=1))
    assert hggdp(["simulate", str(tmp_path / "phantom.npy"), "-o", str(tmp_path / "raw.h5"), *options]) == 0
    prior = ["--prior", str(folder / "tiny.safetensors")]
    assert main([str(tmp_path / "raw.h5"), "--maps", "2", *prior]) == 2
    assert "not Cartesian: nothing folds over" in capsys.readouterr().err
